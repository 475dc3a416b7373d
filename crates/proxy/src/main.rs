//! The `pgteal-proxy` program: reads its file, starts, and ends gracefully when told to; or only says whether it could start.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pgteal_proxy::{Config, Proxy};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const USAGE: &str = "usage: pgteal-proxy --config FILE [--check]";

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let ended = match arguments() {
        Ok((path, true)) => return check(&path),
        Ok((path, false)) => run(path),
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

/// The configuration's file, and whether only to look if the proxy could start with it.
fn arguments() -> Result<(PathBuf, bool), Box<dyn std::error::Error>> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match &args[..] {
        [flag, path] if flag == "--config" => Ok((path.into(), false)),
        [flag, path, check] if flag == "--config" && check == "--check" => Ok((path.into(), true)),
        _ => Err(USAGE.into()),
    }
}

/// What keeps the proxy from starting is one line on standard output, for whoever starts it.
fn check(path: &Path) -> ExitCode {
    let checked = Config::load(path).map_err(|error| error.to_string());
    match checked.and_then(|config| Proxy::check(config).map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            let _ = writeln!(std::io::stdout(), "{reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(&path)?;
    pgteal_proxy::descriptors::raise(&config);
    // Connections live on threads of their own.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let proxy = Proxy::start(config).await?;
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
            }
        }
        tracing::info!("ending");
        proxy.shutdown().await;
        Ok(())
    })
}
