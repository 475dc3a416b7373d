//! `pgteal up`: builds green and replicates until it is in step.

use pgteal_core::deployment::{DatabaseKey, DeploymentId, Side};
use pgteal_core::postgres::{Purpose, database};
use pgteal_core::upgrade;

use super::{Context, ended};
use crate::config::{Env, Loaded};
use crate::errors::Failure;
use crate::exit::Exit;
use crate::run::{Desk, Journey, Stage, place};

const COMMAND: &str = "pgteal up";

/// Options of `up`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal up\n\n\
    Blue goes on serving. The run can be stopped (Ctrl-C) and killed at any moment: given again it goes on,\n\
    `pgteal undo` leaves both clusters as they were found.")]
pub struct Args {}

pub(super) async fn run(_args: Args, context: &Context) -> Result<Exit, Failure> {
    let mut desk = Desk::to_drive(context.config()?).await?;
    let journey = match desk.unfinished("up", COMMAND)? {
        Some(entry) => desk.go_on(context, entry).await?,
        None => begin(context, &desk).await?,
    };
    ended::answer(context, &mut desk, &journey, "green is in step with blue; blue serves").await
}

/// Plans and drives the run.
pub(crate) async fn begin(context: &Context, desk: &Desk) -> Result<Journey, Failure> {
    desk.must_be_free(COMMAND)?;
    if desk.standing.stage != Stage::Nothing {
        return Err(desk.not_now(COMMAND, "green was built already".into()));
    }
    if desk.standing.active == Side::Green {
        let why = "the deployment in this state_dir is finished: its green serves, its blue is retired; the next upgrade is \
                   another deployment, with a configuration and a state_dir of its own";
        return Err(desk.not_now(COMMAND, why.into()));
    }
    let databases = databases(&desk.loaded, &context.env).await?;
    let defect = |error: &dyn std::fmt::Display| Failure::Runbook(error.to_string());
    let registry = upgrade::runbook().map_err(|error| defect(&error))?;
    let id = DeploymentId::generate();
    // Whether a green that must be there is: a run could only wait for it.
    place::provider(&desk.loaded, &context.env, id.clone()).await?.answers().await?;
    let plan = upgrade::plan(&registry, &id, &databases).map_err(|error| defect(&error))?;
    desk.begin(context, registry, plan).await
}

/// The databases of blue that take part: all that accept connections and are no templates.
pub(crate) async fn databases(loaded: &Loaded, env: &Env) -> Result<Vec<DatabaseKey>, Failure> {
    let blue = place::blue(loaded, env)?;
    let session = blue.connect(blue.conninfo().database(), Purpose::control("plan")).await?;
    let found = database::list(&session).await?;
    Ok((0..).zip(found).map(|(ordinal, database)| DatabaseKey { ordinal, name: database.name }).collect())
}
