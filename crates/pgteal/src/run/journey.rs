//! One run from its lease to its outcome: journal, epoch, signals, driver, and the reader that shows it.

use std::sync::Arc;
use std::time::Duration;

use pgteal_core::world::World;
use pgteal_saga::driver::{Driver, Outcome, Setup};
use pgteal_saga::hooks::{AbortAt, Hooks};
use pgteal_saga::journal::{Journal, Lease};
use pgteal_saga::state::State;
use pgteal_saga::{DeploymentId, DriverError, Event, EventBody, Feed, Plan, Registry, RunId};

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

/// Where a run that is over or rests has left the clients, as far as the run itself did something with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// At work on the side that served when the run began.
    Untouched,
    /// Held by a cutover that has not passed its point of no return; the side they are on may be fenced.
    Held,
    /// Held, or on their way, past the point of no return; the side they were on is fenced.
    Crossing,
    /// At work on the other side.
    Moved,
}

impl Clients {
    /// Read from where the run stands.
    #[must_use]
    pub fn of(state: &State) -> Self {
        match (state.plan().section().is_some(), state.is_section_open(), state.is_passed()) {
            (true, true, false) => Self::Held,
            (true, true, true) => Self::Crossing,
            (true, false, true) => Self::Moved,
            _ => Self::Untouched,
        }
    }

    /// Whether they may be held, or in front of a fence.
    #[must_use]
    pub fn are_waiting(self) -> bool {
        matches!(self, Self::Held | Self::Crossing)
    }
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
    /// Where it has left the clients.
    pub clients: Clients,
    /// Its events.
    pub events: Vec<Event>,
    /// The titles of its steps.
    pub titles: Titles,
}

impl Journey {
    /// The failure that it ended with; `None` when it ended as asked for.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        Failure::of_outcome(&self.kind, &self.outcome, self.clients, self.was_left_alone())
    }

    /// Whether the time of the hold had passed when the run was taken up: while nobody drove it.
    fn was_left_alone(&self) -> bool {
        self.events.windows(2).any(|pair| {
            matches!(pair[0].body, EventBody::Resumed { .. })
                && matches!(pair[1].body, EventBody::Deadline { .. })
        })
    }
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
    let (outcome, kind, clients) = ended?;
    let events = journal.load(&run).await?;
    Ok(Journey { run, kind, outcome, clients, events, titles })
}

async fn go(
    setup: Setup<World>,
    run: RunId,
    way: Way,
    lease: &Lease,
) -> Result<(Outcome, String, Clients), Failure> {
    let (mut driver, undo) = match way {
        Way::Create(plan) => (Driver::create(setup, run, *plan, lease).await?, false),
        Way::Resume => (Driver::resume(setup, run, lease).await?, false),
        Way::Undo => (Driver::resume(setup, run, lease).await?, true),
    };
    let ended = if undo { driver.undo(&lease.holder).await } else { driver.run().await };
    let (state, clients) = (driver.state(), Clients::of(driver.state()));
    match ended {
        Ok(outcome) => Ok((outcome, state.plan().kind().to_owned(), clients)),
        // The engine has put back what it could and said so; anything else that ends a driver leaves clients as they are.
        Err(error) if clients.are_waiting() && !matches!(error, DriverError::JournalLost { .. }) => {
            Err(Failure::Adrift { error: Box::new(error), clients })
        }
        Err(error) => Err(error.into()),
    }
}
