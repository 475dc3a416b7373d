//! The `pgteal-proxy` program: reads its file, starts, and ends gracefully when told to; or only says whether it could start.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pgteal_proxy::{Config, Proxy};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const USAGE: &str = "usage: pgteal-proxy --config FILE [--takeover] [--check]";

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let ended = match arguments() {
        Ok(Wanted { path, takeover, check: true }) => return check(&path, takeover),
        Ok(Wanted { path, takeover, check: false }) => run(&path, takeover),
        Err(usage) => Err(usage),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line says.
struct Wanted {
    /// The configuration's file.
    path: PathBuf,
    /// Take the sockets from the proxy that runs, if one does.
    takeover: bool,
    /// Only look if the proxy could start.
    check: bool,
}

fn arguments() -> Result<Wanted, Box<dyn std::error::Error>> {
    let (mut path, mut takeover, mut check) = (None, false, false);
    let mut args = std::env::args_os().skip(1);
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--config") if path.is_none() => path = Some(PathBuf::from(args.next().ok_or(USAGE)?)),
            Some("--takeover") => takeover = true,
            Some("--check") => check = true,
            _ => return Err(USAGE.into()),
        }
    }
    Ok(Wanted { path: path.ok_or(USAGE)?, takeover, check })
}

/// What keeps the proxy from starting is one line on standard output, for whoever starts it.
fn check(path: &Path, takeover: bool) -> ExitCode {
    let check = if takeover { Proxy::check_takeover } else { Proxy::check };
    let checked = Config::load(path).map_err(|error| error.to_string());
    match checked.and_then(|config| check(config).map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            let _ = writeln!(std::io::stdout(), "{reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path, takeover: bool) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(path)?;
    pgteal_proxy::descriptors::raise(&config);
    // Connections live on threads of their own.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let proxy = if takeover { Proxy::take_over(config).await? } else { Proxy::start(config).await? };
        for address in proxy.addresses() {
            tracing::info!(%address, "listening");
        }
        for address in proxy.read_addresses() {
            tracing::info!(%address, "listening for readers");
        }
        for address in proxy.console_addresses() {
            tracing::info!(%address, "listening for the console");
        }
        if let Some(address) = proxy.metrics() {
            tracing::info!(%address, "metrics");
        }
        if let Some(socket) = proxy.socket() {
            tracing::info!(socket = %socket.display(), "listening");
        }
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => proxy.reload(),
                () = proxy.taken_over() => {
                    let told = async {
                        tokio::select! {
                            _ = terminate.recv() => {}
                            _ = interrupt.recv() => {}
                        }
                    };
                    proxy.retire(told).await;
                    return Ok(());
                }
            }
        }
        tracing::info!("ending");
        proxy.shutdown().await;
        Ok(())
    })
}
