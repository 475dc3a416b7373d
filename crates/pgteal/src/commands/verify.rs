//! `pgteal verify`: compare every table of blue and green.

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;

/// Options of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal verify")]
pub struct Args {}

pub(super) async fn run(_args: Args, context: &Context) -> Result<Exit, Failure> {
    context.config()?;
    Ok(Exit::Internal)
}
