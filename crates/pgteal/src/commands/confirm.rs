//! Asks a person before something that cannot be taken back. Without a terminal the answer must come by a flag.

use std::io::{BufRead, IsTerminal};

use super::Context;
use crate::errors::Failure;

/// Whether the person says yes. `command` is the command as it was given.
pub(super) fn ask(context: &Context, question: &str, command: String) -> Result<bool, Failure> {
    if context.ui.json() || !std::io::stdin().is_terminal() {
        return Err(Failure::NotConfirmed { command });
    }
    context.ui.note(format!("{question} [y/N]"));
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Failure::System { doing: "read the answer", reason: error.to_string() })?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
