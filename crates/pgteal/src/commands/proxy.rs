//! `pgteal proxy`: writes the proxy's own configuration into the state directory and becomes the proxy.

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;

/// Options of `proxy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal proxy")]
pub struct Args {
    /// Print the proxy's configuration instead of starting it.
    #[arg(long)]
    print: bool,
}

pub(super) fn run(_args: &Args, context: &Context) -> Result<Exit, Failure> {
    context.config()?;
    Ok(Exit::Internal)
}
