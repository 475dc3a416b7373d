//! `pgteal finish`: removes every object of ours; the side that clients left stays read-only and is handed back.

use pgteal_core::retire;

use super::lost::Lost;
use super::{Context, ended};
use crate::errors::Failure;
use crate::exit::Exit;
use crate::run::{Desk, Journey, Stage};

const COMMAND: &str = "pgteal finish";

/// Options of `finish`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal finish --yes\n\n\
    After it there is no lossless way back: the streams between the clusters are removed.")]
pub struct Args {
    /// Do it without asking; give the side of --lost up although it answers.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    lost: Lost,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let mut desk = Desk::to_drive(context.config()?).await?;
    desk.give_up(args.lost.side, COMMAND)?;
    if !args.yes {
        args.lost.must_be_silent(context, &desk, COMMAND).await?;
    }
    let active = desk.standing.active;
    let asked = match args.lost.side {
        None => format!(
            "{active} serves alone; nothing of pgteal is left on either side. {} stays read-only, so that a forgotten client \
             does not write there: ALTER DATABASE ... RESET default_transaction_read_only in each database lets it write",
            active.other()
        ),
        Some(_) => format!("{active} serves alone; nothing of pgteal is left on it{}", args.lost.told()),
    };
    // Whoever began it has said yes.
    if let Some(entry) = desk.unfinished("finish", COMMAND)? {
        let journey = desk.go_on(context, entry).await?;
        return ended::answer(context, &mut desk, &journey, &asked).await;
    }
    check(&desk)?;
    let question = format!(
        "{active} keeps serving, {} is retired, and there is no lossless way back. Go on?",
        active.other()
    );
    if !args.yes && !super::confirm::ask(context, &question, args.lost.given_to(COMMAND))? {
        return Ok(Exit::Resting);
    }
    let journey = begin(context, &desk).await?;
    ended::answer(context, &mut desk, &journey, &asked).await
}

fn check(desk: &Desk) -> Result<(), Failure> {
    desk.must_be_free(COMMAND)?;
    match desk.standing.stage {
        Stage::Nothing => Err(desk.not_now(COMMAND, "there is nothing to finish".into())),
        Stage::InStep => Err(desk.not_now(COMMAND, "nobody was moved yet; to give up, undo".into())),
        Stage::Building | Stage::Switched | Stage::Retiring => Ok(()),
    }
}

/// Plans and drives the run.
pub(crate) async fn begin(context: &Context, desk: &Desk) -> Result<Journey, Failure> {
    check(desk)?;
    let (id, databases) = desk.databases(COMMAND).await?;
    let active = desk.standing.active;
    let defect = |error: &dyn std::fmt::Display| Failure::Runbook(error.to_string());
    let registry = retire::runbook(active).map_err(|error| defect(&error))?;
    let plan = retire::plan(&registry, &id, &databases, active).map_err(|error| defect(&error))?;
    desk.begin(context, registry, plan).await
}
