//! `pgteal plan`: classify the upgrade, run every check, print the runbook.

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;

/// Options of `plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal plan")]
pub struct Args {}

pub(super) async fn run(_args: Args, context: &Context) -> Result<Exit, Failure> {
    context.config()?;
    Ok(Exit::Internal)
}
