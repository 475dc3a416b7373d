//! `pgteal back`: the switchover from green back to blue.

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;

/// Options of `back`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal back")]
pub struct Args {}

pub(super) async fn run(_args: Args, context: &Context) -> Result<Exit, Failure> {
    context.config()?;
    Ok(Exit::Internal)
}
