//! The journal of a configuration and what it says: where every command that concerns a run begins.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgteal_core::deployment::{DatabaseKey, DeploymentId, Direction, Side};
use pgteal_core::world::World;
use pgteal_core::{retire, switchover, upgrade};
use pgteal_saga::plan::Plan;
use pgteal_saga::state::{Phase, State, fold};
use pgteal_saga::{Event, Journal, Registry, RunId};

use super::journey::{self, Journey, Way};
use super::{Entry, Standing, history, place};
use crate::commands::Context;
use crate::config::Loaded;
use crate::errors::Failure;
use crate::journal::{JournalReader, SqliteJournal};
use crate::proxy_file;

/// The journal's file in the state directory.
pub const JOURNAL: &str = "journal.db";

/// A configuration, its journal, and where its deployment stands.
pub struct Desk {
    /// The configuration.
    pub loaded: Loaded,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// Every run, oldest first.
    pub entries: Vec<Entry>,
    /// Where the newest deployment stands.
    pub standing: Standing,
    /// The side that the operator has given up for good.
    lost: Option<Side>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("standing", &self.standing).finish_non_exhaustive()
    }
}

/// Where the journal of a configuration is.
#[must_use]
pub fn journal_path(loaded: &Loaded) -> PathBuf {
    loaded.state_dir().join(JOURNAL)
}

impl Desk {
    /// Opens the journal to drive runs; no other process may while this one lives.
    ///
    /// # Errors
    /// Another process has it, or it cannot be used.
    pub async fn to_drive(loaded: Loaded) -> Result<Self, Failure> {
        proxy_file::make_state_dir(&loaded)?;
        let journal = SqliteJournal::open(journal_path(&loaded)).await?;
        Self::over(loaded, Arc::new(journal)).await
    }

    /// Opens the journal to look, also while another process drives; `None` when there is none yet.
    ///
    /// # Errors
    /// It cannot be used.
    pub async fn to_look(loaded: Loaded) -> Result<Option<Self>, Failure> {
        match JournalReader::open(journal_path(&loaded)).await {
            Ok(reader) => Self::over(loaded, Arc::new(reader)).await.map(Some),
            Err(pgteal_saga::JournalError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn over(loaded: Loaded, journal: Arc<dyn Journal>) -> Result<Self, Failure> {
        let entries = history::read(&*journal).await?;
        let standing = Standing::after(&entries);
        Ok(Self { loaded, journal, entries, standing, lost: None })
    }

    /// Reads the journal again.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn refresh(&mut self) -> Result<(), Failure> {
        self.entries = history::read(&*self.journal).await?;
        self.standing = Standing::after(&self.entries);
        Ok(())
    }

    /// A run's state and events.
    ///
    /// # Errors
    /// There is no such run, or it tells a story that cannot be.
    pub async fn load(&self, run: &RunId) -> Result<(State, Vec<Event>), Failure> {
        let events = self.journal.load(run).await?;
        let state =
            fold(&events).map_err(|source| pgteal_saga::DriverError::Illegal { run: run.clone(), source })?;
        Ok((state, events))
    }

    /// The deployment and its databases, as its `up` froze them.
    ///
    /// # Errors
    /// There is no deployment.
    pub async fn databases(
        &self,
        command: &'static str,
    ) -> Result<(DeploymentId, Vec<DatabaseKey>), Failure> {
        match (&self.standing.deployment, &self.standing.up) {
            (Some(id), Some(up)) => {
                let (state, _) = self.load(up).await?;
                Ok((id.clone(), upgrade::databases_of(state.plan())))
            }
            _ => Err(self.not_now(command, "there is no deployment yet".into())),
        }
    }

    /// A refusal because of where the deployment stands.
    #[must_use]
    pub fn not_now(&self, command: &'static str, why: String) -> Failure {
        Failure::NotNow { command, why, next: self.standing.next() }
    }

    /// Refuses a new run while another one is open.
    ///
    /// # Errors
    /// Names the open run.
    pub fn must_be_free(&self, command: &'static str) -> Result<(), Failure> {
        match &self.standing.open {
            Some(open) => {
                Err(self.not_now(command, format!("run {} is not over: it is {}", open.run, open.state)))
            }
            None => Ok(()),
        }
    }

    /// The run of this kind that is not over. Nobody drives it, for this process has the journal: the command that began it
    /// goes on with it when it is given again.
    ///
    /// # Errors
    /// It is being taken back: going on is not what was asked for then.
    pub fn unfinished(&self, kind: &str, command: &'static str) -> Result<Option<&Entry>, Failure> {
        match &self.standing.open {
            Some(open) if open.kind == kind && open.taken_back => {
                let why = format!("run {} is being taken back: it is {}", open.run, open.state);
                Err(Failure::NotNow { command, why, next: vec!["pgteal undo"] })
            }
            Some(open) if open.kind == kind => Ok(Some(open)),
            _ => Ok(None),
        }
    }

    /// Goes on with a run that the same command has begun, and says so.
    ///
    /// # Errors
    /// As [`Desk::take_up`].
    pub async fn go_on(&self, context: &Context, entry: &Entry) -> Result<Journey, Failure> {
        context.ui.note(format!("going on with run {}: it is {}", entry.run, entry.state));
        self.take_up(context, entry, Way::Resume).await
    }

    /// Gives a side up that is lost for good: what is driven from here on leaves it as it is.
    ///
    /// # Errors
    /// It is the side that serves.
    pub fn give_up(&mut self, lost: Option<Side>, command: &'static str) -> Result<(), Failure> {
        if lost == Some(self.standing.active) {
            return Err(self.not_now(
                command,
                format!("{} serves; only the other can be given up", self.standing.active),
            ));
        }
        self.lost = lost;
        Ok(())
    }

    /// Refuses to go on without a side that the run still needs.
    fn can_do_without(&self, state: &State, way: &Way) -> Result<(), Failure> {
        let turns_back = matches!(way, Way::Undo) || matches!(state.phase(), Phase::Unwinding(_));
        if self.lost.is_none() || turns_back || state.is_passed() || state.plan().kind() == "finish" {
            return Ok(());
        }
        let why = format!("a run of {} needs both sides until clients have moved", state.plan().kind());
        Err(self.not_now("pgteal resume", why))
    }

    /// Creates a run and drives it.
    ///
    /// # Errors
    /// What kept it from being driven.
    pub async fn begin(
        &self,
        context: &Context,
        registry: Registry<World>,
        plan: Plan,
    ) -> Result<Journey, Failure> {
        let run = RunId::generate(registry.kind()).map_err(|error| Failure::Runbook(error.to_string()))?;
        let frozen = plan.clone();
        self.go(context, registry, run, &frozen, Way::Create(Box::new(plan))).await
    }

    /// Takes up an existing run: goes on with it or undoes it.
    ///
    /// # Errors
    /// What kept it from being driven.
    pub async fn take_up(&self, context: &Context, entry: &Entry, way: Way) -> Result<Journey, Failure> {
        let (state, _) = self.load(&entry.run).await?;
        self.can_do_without(&state, &way)?;
        self.go(context, registry_of(state.plan())?, entry.run.clone(), state.plan(), way).await
    }

    async fn go(
        &self,
        context: &Context,
        registry: Registry<World>,
        run: RunId,
        plan: &Plan,
        way: Way,
    ) -> Result<Journey, Failure> {
        let (id, databases) = (plan.deployment(), upgrade::databases_of(plan));
        let lenient = matches!(way, Way::Undo) || self.lost.is_some();
        let world = place::world(&self.loaded, &context.env, id, databases, run.as_str(), lenient).await?;
        let mut world = world.without(self.lost);
        if let Some(section) = plan.section() {
            // The bound was frozen with the plan, whatever the configuration says by now; holds are limited by it (I5).
            world.settings.deadline = Duration::from_millis(section.bound_ms);
        }
        journey::drive(context, Arc::clone(&self.journal), registry, world, run, way).await
    }
}

/// The steps that a plan was made of.
///
/// # Errors
/// A kind of run that this program does not know.
pub fn registry_of(plan: &Plan) -> Result<Registry<World>, Failure> {
    let made = match plan.kind() {
        "up" => upgrade::runbook(),
        "switch" => switchover::runbook(Direction::SWITCH),
        "back" => switchover::runbook(Direction::BACK),
        "finish" => match retire::active_of(plan) {
            Some(active) => retire::runbook(active),
            None => return Err(Failure::Runbook("a plan of finish names no active side".into())),
        },
        other => return Err(Failure::Runbook(format!("runs of kind {other} are not known"))),
    };
    made.map_err(|error| Failure::Runbook(error.to_string()))
}
