//! `pgteal completions`: completion scripts for shells.

use clap::CommandFactory;

use super::Context;
use crate::cli::Cli;
use crate::errors::Failure;
use crate::exit::Exit;

/// Options of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal completions bash > /etc/bash_completion.d/pgteal")]
pub struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args, context: &Context) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pgteal", &mut script);
    let script = String::from_utf8_lossy(&script);
    if context.ui.json() {
        context.ui.object(&serde_json::json!({ "completions": script }));
    } else {
        context.ui.raw(&script);
    }
    Ok(Exit::Done)
}
