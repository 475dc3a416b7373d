//! Signals that ask a run to rest. The first one asks; nothing kills a run half way, so later ones only say so again.

use pgteal_saga::stop::{Stop, StopHandle};
use tokio::signal::unix::{SignalKind, signal};

use crate::errors::Failure;
use crate::ui::Ui;

/// What is said when a run is asked to rest.
pub const RESUMABLE: &str = "stopping at the next safe point; `pgteal resume` goes on from there";

/// Listens for SIGINT and SIGTERM from now on; says `word` at each.
///
/// # Errors
/// The system refuses a handler.
pub fn listen(ui: &Ui, word: &'static str) -> Result<Stop, Failure> {
    let (handle, stop) = Stop::pair();
    let failed =
        |error: std::io::Error| Failure::System { doing: "listen for signals", reason: error.to_string() };
    let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::spawn(pass_on(handle, ui.clone(), word, interrupt, terminate));
    Ok(stop)
}

async fn pass_on(
    handle: StopHandle,
    ui: Ui,
    word: &'static str,
    mut interrupt: tokio::signal::unix::Signal,
    mut terminate: tokio::signal::unix::Signal,
) {
    loop {
        let heard = tokio::select! {
            heard = interrupt.recv() => heard,
            heard = terminate.recv() => heard,
        };
        if heard.is_none() {
            return;
        }
        handle.request();
        ui.note(word);
    }
}
