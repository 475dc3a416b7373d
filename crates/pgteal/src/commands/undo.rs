//! `pgteal undo`: takes the last run back, before its point of no return.

use super::lost::Lost;
use super::{Context, ended};
use crate::errors::Failure;
use crate::exit::Exit;
use crate::run::{Desk, Entry, Stage, Way};

/// Options of `undo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal undo\n\n\
    Undoes the run that is not over, or an `up` after which nobody was moved. After a switchover the way back is\n\
    `pgteal back`.")]
pub struct Args {
    #[command(flatten)]
    lost: Lost,
    /// Give the side of --lost up although it answers
    #[arg(long, requires = "side")]
    yes: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let mut desk = Desk::to_drive(context.config()?).await?;
    desk.give_up(args.lost.side, "pgteal undo")?;
    let entry = target(&desk)?;
    if !args.yes {
        args.lost.must_be_silent(context, &desk, "pgteal undo").await?;
    }
    let journey = desk.take_up(context, &entry, Way::Undo).await?;
    let asked = match entry.kind.as_str() {
        "up" if args.lost.side.is_some() => format!("blue is as it was found and serves{}", args.lost.told()),
        "up" => "both clusters are as they were found; blue serves".to_owned(),
        kind => {
            format!("the run of {kind} was taken back; {} serves{}", desk.standing.active, args.lost.told())
        }
    };
    ended::answer(context, &mut desk, &journey, &asked).await
}

fn target(desk: &Desk) -> Result<Entry, Failure> {
    const COMMAND: &str = "pgteal undo";
    match &desk.standing.open {
        Some(open) if open.passed => {
            let why =
                format!("run {} has passed its point of no return: nothing is lost by going on", open.run);
            return Err(desk.not_now(COMMAND, why));
        }
        Some(open) => return Ok(open.clone()),
        None => {}
    }
    let up = desk.standing.up.as_ref().and_then(|up| desk.entries.iter().find(|entry| entry.run == *up));
    match (desk.standing.stage, up) {
        (Stage::InStep, Some(up)) => Ok(up.clone()),
        (Stage::Nothing, _) => Err(desk.not_now(COMMAND, "there is nothing to undo".into())),
        _ => Err(desk
            .not_now(COMMAND, "clients were moved since; a switchover is not undone but made again".into())),
    }
}
