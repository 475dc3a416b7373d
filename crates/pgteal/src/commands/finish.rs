//! `pgteal finish`: retire: remove every object of ours.

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;

/// Options of `finish`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal finish")]
pub struct Args {}

pub(super) async fn run(_args: Args, context: &Context) -> Result<Exit, Failure> {
    context.config()?;
    Ok(Exit::Internal)
}
