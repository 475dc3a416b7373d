//! `pgteal status`: where the deployment stands and what may be done next.

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;

/// Options of `status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal status --watch")]
pub struct Args {
    /// Go on showing until interrupted.
    #[arg(long)]
    watch: bool,
}

pub(super) async fn run(_args: Args, context: &Context) -> Result<Exit, Failure> {
    context.config()?;
    Ok(Exit::Internal)
}
