//! `pgteal switch`: the switchover from blue to green.

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;

/// Options of `switch`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal switch --deadline 3s --drain-budget 500ms")]
pub struct Args {}

pub(super) async fn run(_args: Args, context: &Context) -> Result<Exit, Failure> {
    context.config()?;
    Ok(Exit::Internal)
}
