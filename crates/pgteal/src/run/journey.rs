//! One run from its lease to its outcome: journal, epoch, signals, driver, and the reader that shows it.

use std::sync::Arc;
use std::time::Duration;

use pgteal_core::world::World;
use pgteal_saga::driver::{Driver, Outcome, Setup};
use pgteal_saga::hooks::{AbortAt, Hooks};
use pgteal_saga::journal::{Journal, Lease};
use pgteal_saga::state::{Phase, State};
use pgteal_saga::{DeploymentId, Event, Feed, Plan, Registry, RunId};

use super::signals;
use crate::commands::Context;
use crate::errors::Failure;
use crate::render::{Live, Titles};

/// Updates that a slow terminal may be behind.
const FEED: usize = 4096;
/// How long the reader may take to show the rest when the run is over.
const CLOSE_BOUND: Duration = Duration::from_secs(5);

/// What to do with the run.
#[derive(Debug)]
pub enum Way {
    /// Create it from this plan and drive it.
    Create(Box<Plan>),
    /// Go on with it.
    Resume,
    /// Undo it.
    Undo,
}

/// How a run ended.
#[derive(Debug)]
pub struct Journey {
    /// The run.
    pub run: RunId,
    /// Its kind.
    pub kind: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it is past its point of no return.
    pub passed: bool,
    /// Its events.
    pub events: Vec<Event>,
    /// The titles of its steps.
    pub titles: Titles,
}

/// The steps of a runbook, by id.
#[must_use]
pub fn titles(registry: &Registry<World>) -> Titles {
    registry.steps().iter().map(|step| (step.id().to_owned(), step.title().to_owned())).collect()
}

/// Takes the lease of a deployment for this process.
///
/// # Errors
/// Another process holds it, or the journal fails.
pub async fn lease(journal: &dyn Journal, deployment: &DeploymentId) -> Result<Lease, Failure> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let holder = format!("pgteal {} on {}", std::process::id(), host.trim());
    Ok(journal.acquire(deployment, &holder, jiff::Timestamp::now()).await?)
}

/// Drives a run in the foreground until it is over or rests.
///
/// # Errors
/// What kept the engine from driving; how the run itself ended is in the answer.
pub async fn drive(
    context: &Context,
    journal: Arc<dyn Journal>,
    registry: Registry<World>,
    world: World,
    run: RunId,
    way: Way,
) -> Result<Journey, Failure> {
    let (feed, titles) = (Feed::new(FEED), titles(&registry));
    let hooks: Arc<dyn Hooks> = Arc::new(AbortAt::from_env().map_err(|error| Failure::Argument {
        argument: AbortAt::VARIABLE.into(),
        reason: error.to_string(),
    })?);
    let mut lease = lease(&*journal, &world.deployment).await?;
    if let Some(side) = world.lost() {
        // For the record.
        lease.holder += &format!(", without {side}");
    }
    let world = Arc::new(world);
    let mut setup = Setup::new(Arc::new(registry), Arc::clone(&journal), Arc::clone(&world));
    setup.hooks = hooks;
    setup.observer = Arc::new(feed.clone());
    setup.stop = match &context.stop {
        Some(stop) => stop.clone(),
        None => signals::listen(&context.ui, signals::RESUMABLE)?,
    };
    let live = Live::start(&context.ui, &feed, titles.clone());
    let ended = go(setup, run.clone(), way, &lease).await;
    world.part().await;
    // A terminal that no longer takes anything must not keep the command.
    let _ = tokio::time::timeout(CLOSE_BOUND, live.close()).await;
    let (outcome, kind, passed) = ended?;
    let events = journal.load(&run).await?;
    Ok(Journey { run, kind, outcome, passed, events, titles })
}

async fn go(
    setup: Setup<World>,
    run: RunId,
    way: Way,
    lease: &Lease,
) -> Result<(Outcome, String, bool), Failure> {
    let (mut driver, undo) = match way {
        Way::Create(plan) => (Driver::create(setup, run, *plan, lease).await?, false),
        Way::Resume => (Driver::resume(setup, run, lease).await?, false),
        Way::Undo => (Driver::resume(setup, run, lease).await?, true),
    };
    let outcome = if undo { driver.undo(&lease.holder).await? } else { driver.run().await? };
    let state = driver.state();
    Ok((outcome, state.plan().kind().to_owned(), is_passed(state)))
}

/// Whether clients may be on the other side.
fn is_passed(state: &State) -> bool {
    !matches!(state.phase(), Phase::Unwound(_) | Phase::Unwinding(_)) && state.is_passed()
}
