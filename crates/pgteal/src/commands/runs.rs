//! `pgteal runs`: the runs of this deployment.

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;

/// Options of `runs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal runs")]
pub struct Args {}

pub(super) async fn run(_args: Args, context: &Context) -> Result<Exit, Failure> {
    context.config()?;
    Ok(Exit::Internal)
}
