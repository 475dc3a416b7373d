//! The only loop: decide, act, record. Here: how a run is created, taken up, driven and undone.
//! Refuses to decide ([`crate::decide`]) and to believe a step (`attempt`).

mod attempt;
mod backward;
mod emergency;
mod forward;
mod record;

use std::sync::Arc;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::cx::Cx;
use crate::decide::{BY_STOP, Decision, Now, decide};
use crate::event::{Doing, Event, EventBody};
use crate::fault::Failure;
use crate::hooks::{CrashPoint, Fate, Hooks, NoHooks};
use crate::ids::{Epoch, RunId};
use crate::journal::{Durability, Journal, JournalError, Lease};
use crate::observer::{Observer, Silent};
use crate::plan::{Plan, PlanError};
use crate::registry::Registry;
use crate::state::{Cause, IllegalEvent, Phase, Rest, State, fold};
use crate::step::Step;
use crate::stop::Stop;

/// How a call of [`Driver::run`] ended. All but the first two are rests: [`Driver::run`] goes on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every step succeeded.
    Done,
    /// Every started step was undone.
    Unwound {
        /// Why.
        cause: Cause,
    },
    /// The tries are used up.
    Stuck {
        /// The step.
        step: String,
        /// What was tried.
        doing: Doing,
        /// The last failure.
        failure: Failure,
    },
    /// A gate is closed.
    Waiting {
        /// The gate.
        step: String,
        /// What it waits for.
        what: String,
    },
    /// The operator stopped it.
    Stopped,
}

/// Why the driver itself gave up. The run stands where the journal says; it can be resumed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DriverError {
    /// The journal did not take or give the record.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal failed while clients were held, and the section was undone without it.
    #[error("{source}; the section was undone without a record: {}", summary(.undone, .left))]
    JournalLost {
        /// What the journal said.
        source: JournalError,
        /// The steps that were undone.
        undone: Vec<String>,
        /// The steps that could not be, and why.
        left: Vec<(String, String)>,
    },
    /// The plan cannot be driven by this program.
    #[error("run {run} cannot be driven: {source}")]
    Plan {
        /// The run.
        run: RunId,
        /// Why.
        source: PlanError,
    },
    /// The journal tells a story that cannot be.
    #[error("run {run}: {source}")]
    Illegal {
        /// The run.
        run: RunId,
        /// The event that cannot follow.
        source: IllegalEvent,
    },
    /// The lease is of another deployment.
    #[error("run {run} belongs to deployment {run_of}, the lease is of {lease_of}")]
    OtherLease {
        /// The run.
        run: RunId,
        /// Its deployment.
        run_of: String,
        /// The lease's.
        lease_of: String,
    },
    /// It is too late to undo, or there is nothing to undo.
    #[error("run {run} cannot be undone: {why}")]
    NotUndoable {
        /// The run.
        run: RunId,
        /// Why.
        why: &'static str,
    },
    /// The run does not wait at this gate.
    #[error("run {run} does not wait at {step}: it is {found}")]
    NotAtGate {
        /// The run.
        run: RunId,
        /// The gate asked for.
        step: String,
        /// Where it stands.
        found: String,
    },
    /// A hook ended the driver, as a crash would.
    #[error("the driver died at {step}, {point}")]
    Died {
        /// The step.
        step: String,
        /// The moment.
        point: CrashPoint,
    },
}

fn summary(undone: &[String], left: &[(String, String)]) -> String {
    let left: Vec<_> = left.iter().map(|(step, why)| format!("{step} ({why})")).collect();
    format!("undone [{}], left [{}]", undone.join(", "), left.join(", "))
}

/// What a driver works with. Cheap to clone.
pub struct Setup<W: Send + Sync + 'static> {
    /// The steps.
    pub registry: Arc<Registry<W>>,
    /// The record.
    pub journal: Arc<dyn Journal>,
    /// What the steps work on.
    pub world: Arc<W>,
    /// Moments at which a test may kill the driver.
    pub hooks: Arc<dyn Hooks>,
    /// Who is told.
    pub observer: Arc<dyn Observer>,
    /// The operator's wish to stop.
    pub stop: Stop,
    /// The time.
    pub clock: Clock,
}

impl<W: Send + Sync + 'static> std::fmt::Debug for Setup<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl<W: Send + Sync + 'static> Clone for Setup<W> {
    fn clone(&self) -> Self {
        Self {
            registry: Arc::clone(&self.registry),
            journal: Arc::clone(&self.journal),
            world: Arc::clone(&self.world),
            hooks: Arc::clone(&self.hooks),
            observer: Arc::clone(&self.observer),
            stop: self.stop.clone(),
            clock: self.clock,
        }
    }
}

impl<W: Send + Sync + 'static> Setup<W> {
    /// With no hooks, nobody told, nobody stopping, and the system's clock. Replace fields as needed.
    pub fn new(registry: Arc<Registry<W>>, journal: Arc<dyn Journal>, world: Arc<W>) -> Self {
        Self {
            registry,
            journal,
            world,
            hooks: Arc::new(NoHooks),
            observer: Arc::new(Silent),
            stop: Stop::never(),
            clock: Clock::system(),
        }
    }
}

/// Drives one run under one lease.
pub struct Driver<W: Send + Sync + 'static> {
    setup: Setup<W>,
    run: RunId,
    epoch: Epoch,
    holder: String,
    state: State,
    /// Whether the last event of the journal is not this driver's own, so that it must say that it took over.
    must_resume: bool,
    /// Events that the state has and the journal has not yet; see `record`.
    held_back: Vec<Event>,
    /// Whether the journal failed at the start of the point of no return, so that nobody knows if that is recorded.
    point_in_doubt: bool,
    /// The next step, entered already.
    ahead: Option<forward::Ahead>,
    /// The step whose guard this driver has asked last.
    guarded: Option<usize>,
}

impl<W: Send + Sync + 'static> std::fmt::Debug for Driver<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("run", &self.run).field("state", &self.state.describe()).finish()
    }
}

impl<W: Send + Sync + 'static> Driver<W> {
    /// Creates the run `run` of `plan` in the journal.
    ///
    /// # Errors
    /// [`DriverError::Plan`] if this program cannot drive it; [`DriverError::Journal`].
    pub async fn create(setup: Setup<W>, run: RunId, plan: Plan, lease: &Lease) -> Result<Self, DriverError> {
        check(&setup, &run, &plan, lease)?;
        let first = record::event(&setup.clock, 0, lease.epoch, EventBody::RunCreated { plan });
        let state =
            State::begin(&first).map_err(|source| DriverError::Illegal { run: run.clone(), source })?;
        let events = std::slice::from_ref(&first);
        setup.journal.append(&run, lease.epoch, 0, events, Durability::Sync).await?;
        setup.observer.event(&run, &first);
        Ok(Self::new(setup, run, lease, state, false))
    }

    /// Takes up the run `run` as the journal has it. Writes nothing yet.
    ///
    /// # Errors
    /// [`DriverError::Journal`], [`DriverError::Illegal`], or [`DriverError::Plan`] if the plan is not what was frozen
    /// or holds steps this program does not know.
    pub async fn resume(setup: Setup<W>, run: RunId, lease: &Lease) -> Result<Self, DriverError> {
        let events = setup.journal.load(&run).await?;
        let state = fold(&events).map_err(|source| DriverError::Illegal { run: run.clone(), source })?;
        check(&setup, &run, state.plan(), lease)?;
        Ok(Self::new(setup, run, lease, state, true))
    }

    fn new(setup: Setup<W>, run: RunId, lease: &Lease, state: State, must_resume: bool) -> Self {
        let (epoch, holder) = (lease.epoch, lease.holder.clone());
        let (held_back, point_in_doubt, ahead, guarded) = (Vec::new(), false, None, None);
        Self { setup, run, epoch, holder, state, must_resume, held_back, point_in_doubt, ahead, guarded }
    }

    /// Drives the run until it is over or rests.
    ///
    /// # Errors
    /// [`DriverError`]: the driver could not go on; nothing of the run was decided by that.
    pub async fn run(&mut self) -> Result<Outcome, DriverError> {
        if !self.state.is_over() && (self.must_resume || self.state.rest().is_some()) {
            self.take_over(Vec::new()).await?;
        }
        let ended = match self.drive().await {
            // The dead write nothing any more, nor does a journal that failed take anything.
            ended @ Err(DriverError::Died { .. } | DriverError::Journal(_)) => ended,
            ended => self.write_held_back().await.and(ended),
        };
        match ended {
            Err(DriverError::Journal(source)) => Err(self.without_journal(source).await),
            other => other,
        }
    }

    /// Undoes the run at the word of `by`: also one that is done, if it has no point of no return.
    ///
    /// # Errors
    /// [`DriverError::NotUndoable`] after the point of no return or when it is unwound already; else as [`Self::run`].
    pub async fn undo(&mut self, by: &str) -> Result<Outcome, DriverError> {
        match self.state.phase() {
            // It is on its way back already: going on is what was asked for.
            Phase::Unwinding(_) => return self.run().await,
            Phase::Unwound(_) => return Err(self.not_undoable("it is unwound already")),
            Phase::Forward | Phase::Done if !self.state.may_undo() => {
                return Err(self.not_undoable("it is past the point of no return"));
            }
            Phase::Forward | Phase::Done => {}
        }
        self.take_over(vec![EventBody::UndoRequested { by: by.to_owned() }]).await?;
        self.run().await
    }

    /// Opens the gate at which the run waits and goes on.
    ///
    /// # Errors
    /// [`DriverError::NotAtGate`] if it does not wait at `step`; else as [`Self::run`].
    pub async fn open_gate(&mut self, step: &str, by: &str) -> Result<Outcome, DriverError> {
        if !matches!(self.state.rest(), Some(Rest::Waiting { step: gate, .. }) if gate == step) {
            return Err(DriverError::NotAtGate {
                run: self.run.clone(),
                step: step.to_owned(),
                found: self.state.describe(),
            });
        }
        let opened = EventBody::GateOpened { step: step.to_owned(), by: by.to_owned() };
        self.take_over(vec![opened]).await?;
        self.run().await
    }

    /// Where the run stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The run.
    pub fn run_id(&self) -> &RunId {
        &self.run
    }

    fn not_undoable(&self, why: &'static str) -> DriverError {
        DriverError::NotUndoable { run: self.run.clone(), why }
    }

    async fn take_over(&mut self, then: Vec<EventBody>) -> Result<(), DriverError> {
        let mut bodies = vec![EventBody::Resumed { holder: self.holder.clone() }];
        bodies.extend(then);
        self.record_all(bodies, Durability::Sync).await?;
        self.must_resume = false;
        Ok(())
    }

    async fn drive(&mut self) -> Result<Outcome, DriverError> {
        loop {
            let now = Now { at: self.setup.clock.now(), stop: self.setup.stop.is_requested() };
            let decision = decide(self.state.plan(), &self.state, now);
            tracing::trace!(run = %self.run, ?decision, "decided");
            match decision {
                Decision::Over(_) | Decision::Rest(_) => return Ok(self.outcome()),
                other => self.act(other, now.stop).await?,
            }
        }
    }

    async fn act(&mut self, decision: Decision, stop: bool) -> Result<(), DriverError> {
        match decision {
            Decision::Begin { step, not_before } => {
                if self.wait_until(not_before, stop).await? {
                    self.begin(step).await?;
                }
            }
            Decision::Continue { step, not_before } => {
                if self.wait_until(not_before, stop).await? {
                    self.pursue(step).await?;
                }
            }
            Decision::Confirm => self.confirm().await?,
            Decision::PassGate { step } => self.succeed(step, EventBody::succeeded(self.id(step))).await?,
            Decision::Expire { step, elapsed_ms } => {
                let body = EventBody::Deadline { step: self.id(step), elapsed_ms };
                self.record(body, Durability::Deferred).await?;
            }
            Decision::UnwindForStop => {
                let body = EventBody::UndoRequested { by: BY_STOP.into() };
                self.record(body, Durability::Deferred).await?;
            }
            Decision::BeginUndo { step } => self.begin_undo(step).await?,
            Decision::ContinueUndo { step, not_before } => {
                if self.wait_until(not_before, stop).await? {
                    self.pursue_undo(step).await?;
                }
            }
            Decision::Stick { step, doing, failure } => {
                let body = EventBody::Stuck { step: self.id(step), doing, failure };
                self.record(body, Durability::Sync).await?;
            }
            Decision::Stop => self.record(EventBody::Stopped, Durability::Sync).await?,
            Decision::Finish(end) => self.record(EventBody::Finished { end }, Durability::Sync).await?,
            Decision::Over(_) | Decision::Rest(_) => {}
        }
        Ok(())
    }

    /// Waits until `at`. Says false if the operator or the deadline ended the wait: then it must be decided anew. A stop
    /// that was known when the wait was decided does not end it.
    async fn wait_until(&mut self, at: Option<jiff::Timestamp>, stop: bool) -> Result<bool, DriverError> {
        let Some(at) = at.filter(|at| *at > self.setup.clock.now()) else { return Ok(true) };
        self.write_held_back().await?;
        let wait = tokio::time::sleep_until(self.setup.clock.instant_of(at));
        let may_stop = !stop && (!self.state.is_section_open() || self.state.is_bounded());
        Ok(self.interruptible(may_stop, wait).await.is_some())
    }

    /// `work`, unless the section's deadline or, with `may_stop`, the operator ends it first.
    async fn interruptible<T>(&self, may_stop: bool, work: impl Future<Output = T>) -> Option<T> {
        let deadline = self.deadline();
        let expired = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let stopped = async {
            match may_stop {
                true => self.setup.stop.requested().await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = expired => None,
            () = stopped => None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.state.deadline().map(|at| self.setup.clock.instant_of(at))
    }

    fn outcome(&self) -> Outcome {
        match (self.state.rest(), self.state.phase()) {
            (Some(Rest::Stuck { step, doing, failure }), _) => {
                Outcome::Stuck { step: step.clone(), doing: *doing, failure: failure.clone() }
            }
            (Some(Rest::Waiting { step, what }), _) => {
                Outcome::Waiting { step: step.clone(), what: what.clone() }
            }
            (None, Phase::Done) => Outcome::Done,
            (None, Phase::Unwound(cause)) => Outcome::Unwound { cause: cause.clone() },
            (Some(Rest::Stopped), _) | (None, Phase::Forward | Phase::Unwinding(_)) => Outcome::Stopped,
        }
    }

    fn id(&self, index: usize) -> String {
        self.state.plan().steps()[index].id.clone()
    }

    fn step(&self, index: usize) -> Result<Arc<dyn Step<W>>, DriverError> {
        let id = &self.state.plan().steps()[index].id;
        self.setup.registry.get(id).cloned().ok_or_else(|| DriverError::Plan {
            run: self.run.clone(),
            source: PlanError::UnknownStep { kind: self.state.plan().kind().to_owned(), step: id.clone() },
        })
    }

    fn cx(&self, index: usize) -> Cx {
        let planned = &self.state.plan().steps()[index];
        // Inside the section a step does not hear of a stop: the driver itself ends it, or must not.
        let stop = if self.state.is_section_open() { Stop::never() } else { self.setup.stop.clone() };
        Cx {
            run: self.run.clone(),
            deployment: self.state.plan().deployment().clone(),
            epoch: self.epoch,
            step: planned.id.clone(),
            params: Arc::new(planned.params.clone()),
            attempt: self.state.attempts() + 1,
            deadline: self.deadline(),
            stop,
            observer: Arc::clone(&self.setup.observer),
            facts: Arc::default(),
        }
    }

    fn reached(&self, index: usize, point: CrashPoint) -> Result<(), DriverError> {
        let plan = self.state.plan();
        let step = &plan.steps()[index].id;
        match self.setup.hooks.reached(plan.kind(), step, point) {
            Fate::Live => Ok(()),
            Fate::Die => Err(DriverError::Died { step: step.clone(), point }),
        }
    }
}

fn check<W: Send + Sync + 'static>(
    setup: &Setup<W>,
    run: &RunId,
    plan: &Plan,
    lease: &Lease,
) -> Result<(), DriverError> {
    if *plan.deployment() != lease.deployment {
        return Err(DriverError::OtherLease {
            run: run.clone(),
            run_of: plan.deployment().to_string(),
            lease_of: lease.deployment.to_string(),
        });
    }
    setup.registry.check(plan).map_err(|source| DriverError::Plan { run: run.clone(), source })
}

impl EventBody {
    fn succeeded(step: String) -> Self {
        Self::Succeeded { step, facts: crate::event::Facts::new() }
    }
}
