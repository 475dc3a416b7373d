//! One world with one run on it: what a case needs to drive, kill, resume and look.
//! Refuses to judge.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

use crate::clock::Clock;
use crate::driver::{Driver, DriverError, Outcome, Setup};
use crate::event::Event;
use crate::hooks::{CrashPoint, Fate, Hooks, NoHooks};
use crate::ids::{DeploymentId, Epoch, RunId};
use crate::journal::{Durability, Journal, JournalError, Lease, RunSummary};
use crate::memory::MemoryJournal;
use crate::observer::Silent;
use crate::plan::Plan;
use crate::proof::bench::Bench;
use crate::proof::faulty::{Switch, misbehaving};
use crate::stop::{Stop, StopHandle};

/// What happens when the driver passes the moment.
pub(super) enum Moment {
    Die,
    Stop(StopHandle),
    Overtake(Arc<MemoryJournal>, DeploymentId),
    BreakJournal(Arc<Sickly>),
}

/// Acts once, at one moment of one step.
pub(super) struct At {
    step: String,
    point: CrashPoint,
    moment: Mutex<Option<Moment>>,
    pub(super) hit: AtomicBool,
}

impl At {
    pub(super) fn new(step: String, point: CrashPoint, moment: Moment) -> Arc<Self> {
        Arc::new(Self { step, point, moment: Mutex::new(Some(moment)), hit: AtomicBool::new(false) })
    }
}

impl Hooks for At {
    fn reached(&self, _kind: &str, step: &str, point: CrashPoint) -> Fate {
        if step != self.step || point != self.point {
            return Fate::Live;
        }
        let moment = self.moment.lock().unwrap_or_else(PoisonError::into_inner).take();
        if moment.is_some() {
            self.hit.store(true, Ordering::SeqCst);
        }
        match moment {
            None => Fate::Live,
            Some(Moment::Die) => Fate::Die,
            Some(Moment::Stop(handle)) => {
                handle.request();
                Fate::Live
            }
            Some(Moment::Overtake(journal, deployment)) => {
                journal.take_lease(&deployment, "the other", Timestamp::UNIX_EPOCH);
                Fate::Live
            }
            Some(Moment::BreakJournal(journal)) => {
                journal.is_broken.store(true, Ordering::SeqCst);
                Fate::Live
            }
        }
    }
}

/// A journal whose disk fails while it is broken.
pub(super) struct Sickly {
    inner: Arc<MemoryJournal>,
    pub(super) is_broken: AtomicBool,
}

impl Sickly {
    pub(super) fn new(inner: Arc<MemoryJournal>) -> Arc<Self> {
        Arc::new(Self { inner, is_broken: AtomicBool::new(false) })
    }
}

#[async_trait]
impl Journal for Sickly {
    async fn append(
        &self,
        run: &RunId,
        epoch: Epoch,
        expected_seq: u64,
        events: &[Event],
        durability: Durability,
    ) -> Result<u64, JournalError> {
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(JournalError::Full { place: "of the proof".into() });
        }
        self.inner.append(run, epoch, expected_seq, events, durability).await
    }

    async fn load(&self, run: &RunId) -> Result<Vec<Event>, JournalError> {
        self.inner.load(run).await
    }

    async fn runs(&self) -> Result<Vec<RunSummary>, JournalError> {
        self.inner.runs().await
    }

    async fn acquire(&self, id: &DeploymentId, holder: &str, at: Timestamp) -> Result<Lease, JournalError> {
        self.inner.acquire(id, holder, at).await
    }

    async fn lease(&self, id: &DeploymentId) -> Result<Option<Lease>, JournalError> {
        self.inner.lease(id).await
    }
}

/// How to drive this time.
#[derive(Default)]
pub(super) struct How {
    pub(super) hooks: Option<Arc<At>>,
    pub(super) stop: Option<Stop>,
    pub(super) undo: bool,
    pub(super) sickly: Option<Arc<Sickly>>,
}

/// One world with one run on it.
pub(super) struct Rig<'a, B: Bench> {
    bench: &'a B,
    pub(super) world: Arc<B::World>,
    pub(super) plan: Plan,
    pub(super) journal: Arc<MemoryJournal>,
    pub(super) run: RunId,
    pub(super) switches: Vec<Arc<Switch>>,
    clock: Clock,
}

impl<'a, B: Bench> Rig<'a, B> {
    pub(super) async fn new(bench: &'a B, world: Arc<B::World>) -> Result<Self, String> {
        let plan = bench.plan(&world).await?;
        let run = RunId::generate(plan.kind()).map_err(|error| error.to_string())?;
        Ok(Self {
            bench,
            world,
            plan,
            journal: Arc::default(),
            run,
            switches: Vec::new(),
            clock: Clock::system(),
        })
    }

    pub(super) fn lease(&self) -> Lease {
        self.journal.take_lease(self.plan.deployment(), "the proof", Timestamp::UNIX_EPOCH)
    }

    pub(super) fn setup(&self, how: &How) -> Result<Setup<B::World>, String> {
        let journal: Arc<dyn Journal> = match &how.sickly {
            Some(sickly) => Arc::clone(sickly) as Arc<dyn Journal>,
            None => Arc::clone(&self.journal) as Arc<dyn Journal>,
        };
        Ok(Setup {
            registry: misbehaving(&*self.bench.registry(), &self.switches)?,
            journal,
            world: Arc::clone(&self.world),
            hooks: match &how.hooks {
                Some(at) => Arc::clone(at) as Arc<dyn Hooks>,
                None => Arc::new(NoHooks),
            },
            observer: Arc::new(Silent),
            stop: how.stop.clone().unwrap_or_else(Stop::never),
            clock: self.clock,
        })
    }

    /// Creates the run, or takes it up under a new lease if it exists, and drives it. Gates are opened as they come.
    pub(super) async fn drive(&self, how: How) -> Result<Result<Outcome, DriverError>, String> {
        let lease = self.lease();
        let setup = self.setup(&how)?;
        let exists = self.journal.load(&self.run).await.is_ok();
        let made = match exists {
            true => Driver::resume(setup, self.run.clone(), &lease).await,
            false => Driver::create(setup, self.run.clone(), self.plan.clone(), &lease).await,
        };
        let mut driver = match made {
            Ok(driver) => driver,
            Err(error) => return Ok(Err(error)),
        };
        let mut outcome = if how.undo { driver.undo("the proof").await } else { driver.run().await };
        while let Ok(Outcome::Waiting { step, .. }) = &outcome {
            let gate = step.clone();
            outcome = driver.open_gate(&gate, "the proof").await;
        }
        Ok(outcome)
    }

    pub(super) async fn picture(&self) -> Result<Value, String> {
        self.bench.picture(&self.world).await
    }

    pub(super) async fn occupy(&self, step: &str) -> Result<bool, String> {
        self.bench.occupy(&self.world, step).await
    }

    pub(super) async fn lose(&self, step: &str) -> Result<bool, String> {
        self.bench.lose(&self.world, step).await
    }

    pub(super) async fn events(&self) -> Result<Vec<Event>, String> {
        self.journal.load(&self.run).await.map_err(|error| error.to_string())
    }
}
