//! Asks a person before something that cannot be taken back. Without a terminal the answer must come by a flag.

use std::io::{BufRead, IsTerminal};

use super::Context;
use crate::errors::Failure;

/// Whether the person says yes.
pub(super) fn ask(context: &Context, question: &str) -> Result<bool, Failure> {
    if context.ui.json() || !std::io::stdin().is_terminal() {
        let reason = "this cannot be taken back and there is no terminal to ask at; if it is meant, give the command again \
                      with --yes"
            .to_owned();
        return Err(Failure::Argument { argument: "--yes".into(), reason });
    }
    context.ui.note(format!("{question} [y/N]"));
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Failure::System { doing: "read the answer", reason: error.to_string() })?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
