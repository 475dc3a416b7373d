//! `pgteal back`: the switchover from green back to blue, through the reverse stream.

use pgteal_core::deployment::Direction;

use super::Context;
use super::switch::{self, Limits};
use crate::errors::Failure;
use crate::exit::Exit;

/// Options of `back`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal back\n\n\
    Nothing that was written on green is lost: blue follows green from before green's first write on.")]
pub struct Args {
    /// How the switchover behaves.
    #[command(flatten)]
    limits: Limits,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    switch::command(context, Direction::BACK, &args.limits).await
}
