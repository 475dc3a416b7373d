//! `pgteal up`: build green and replicate until it is in step.

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;

/// Options of `up`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal up")]
pub struct Args {}

pub(super) async fn run(_args: Args, context: &Context) -> Result<Exit, Failure> {
    context.config()?;
    Ok(Exit::Internal)
}
