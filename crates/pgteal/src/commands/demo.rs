//! `pgteal demo`: the whole story on one machine.

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;

/// Options of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal demo --from 15 --to 18")]
pub struct Args {}

pub(super) async fn run(_args: Args, context: &Context) -> Result<Exit, Failure> {
    context.config()?;
    Ok(Exit::Internal)
}
