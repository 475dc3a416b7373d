//! `pgteal resume`: go on with a run that rests.

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;

/// Options of `resume`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal resume")]
pub struct Args {}

pub(super) async fn run(_args: Args, context: &Context) -> Result<Exit, Failure> {
    context.config()?;
    Ok(Exit::Internal)
}
