//! Log lines on standard error. Silent unless asked for by `-v` or `PGTEAL_LOG`.

use tracing_subscriber::EnvFilter;

/// Starts logging for the life of the process.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 => "error",
        1 => "pgteal=info,pgteal_core=info,pgteal_saga=info,pgteal_routers=info",
        2 => "pgteal=debug,pgteal_core=debug,pgteal_saga=debug,pgteal_routers=debug,pgteal_postgres=debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("PGTEAL_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(true);
    // A second call in one process (tests) keeps the first subscriber.
    let _ = subscriber.try_init();
}
