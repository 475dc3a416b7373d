//! `pgteal undo`: take back the last run.

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;

/// Options of `undo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal undo")]
pub struct Args {}

pub(super) async fn run(_args: Args, context: &Context) -> Result<Exit, Failure> {
    context.config()?;
    Ok(Exit::Internal)
}
