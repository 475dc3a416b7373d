//! `pgteal resume`: goes on with a run that was stopped, killed or is stuck.

use super::lost::Lost;
use super::{Context, ended};
use crate::errors::Failure;
use crate::exit::Exit;
use crate::run::{Desk, Way};

/// Options of `resume`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal resume")]
pub struct Args {
    #[command(flatten)]
    lost: Lost,
    /// Give the side of --lost up although it answers
    #[arg(long, requires = "side")]
    yes: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let mut desk = Desk::to_drive(context.config()?).await?;
    desk.give_up(args.lost.side, "pgteal resume")?;
    let Some(entry) = desk.standing.open.clone() else {
        return Err(desk.not_now("pgteal resume", "no run is open".into()));
    };
    if !args.yes {
        args.lost.must_be_silent(context, &desk, "pgteal resume").await?;
    }
    let journey = desk.take_up(context, &entry, Way::Resume).await?;
    ended::answer(context, &mut desk, &journey, &format!("run {} is over", entry.run)).await
}
