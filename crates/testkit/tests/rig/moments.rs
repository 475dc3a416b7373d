//! Doing harm at a named moment of a run, taking a run up again, and putting another step in a step's place.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgteal_core::deployment::{Direction, Side};
use pgteal_core::switchover;
use pgteal_core::world::World;
use pgteal_proxy::Proxy;
use pgteal_saga::driver::{Driver, DriverError, Outcome, Setup};
use pgteal_saga::hooks::Fate;
use pgteal_saga::{CrashPoint, Epoch, Event, EventBody, Hooks, Journal, Plan, Registry, RunId, Step};
use pgteal_testkit::wait_until;

use super::Rig;

type Act = Pin<Box<dyn Future<Output = Fate> + Send>>;

struct Moment {
    step: &'static str,
    point: CrashPoint,
    act: Mutex<Option<Act>>,
}

/// What happens when the driver passes a crash point, each once. The driver waits until it is over, as if the world had
/// changed between two instructions of it.
#[derive(Default)]
pub struct Moments(Vec<Moment>);

impl Moments {
    pub fn new() -> Self {
        Self::default()
    }

    /// Does `act` at `point` of `step`.
    pub fn at(
        self,
        step: &'static str,
        point: CrashPoint,
        act: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let act = async {
            act.await;
            Fate::Live
        };
        self.with(step, point, Box::pin(act))
    }

    /// Ends the driver there as a killed process would.
    pub fn die_at(self, step: &'static str, point: CrashPoint) -> Self {
        self.with(step, point, Box::pin(async { Fate::Die }))
    }

    fn with(mut self, step: &'static str, point: CrashPoint, act: Act) -> Self {
        self.0.push(Moment { step, point, act: Mutex::new(Some(act)) });
        self
    }

    /// The moments that never came.
    fn missed(&self) -> Vec<String> {
        let waiting = self.0.iter().filter(|moment| moment.act.lock().unwrap().is_some());
        waiting.map(|moment| format!("{}/{}", moment.step, moment.point)).collect()
    }
}

impl Hooks for Moments {
    fn reached(&self, _kind: &str, step: &str, point: CrashPoint) -> Fate {
        let Some(moment) = self.0.iter().find(|moment| moment.step == step && moment.point == point) else {
            return Fate::Live;
        };
        let act = moment.act.lock().unwrap().take();
        act.map_or(Fate::Live, |act| {
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(act))
        })
    }
}

impl Rig {
    /// Drives a plan from its beginning through `moments`, all of which must come, to where it rests or dies.
    pub async fn drive_through(
        &self,
        registry: Registry<World>,
        plan: Plan,
        moments: Moments,
    ) -> (RunId, Result<Outcome, DriverError>) {
        let lease = self.journal.acquire(&self.id, "test", jiff::Timestamp::now()).await.unwrap();
        let run = RunId::generate(plan.kind()).unwrap();
        let moments = Arc::new(moments);
        let mut setup = self.setup(registry);
        setup.hooks = moments.clone();
        let ended = Driver::create(setup, run.clone(), plan, &lease).await.unwrap().run().await;
        if !moments.missed().is_empty() {
            self.tell(&run).await;
            panic!("the run ended {ended:?} without passing {:?}", moments.missed());
        }
        (run, ended)
    }

    /// A new controller takes the run up, as `resume` does: with nothing in its memory.
    pub async fn resume(&self, registry: Registry<World>, run: &RunId) -> Outcome {
        let lease = self.journal.acquire(&self.id, "test", jiff::Timestamp::now()).await.unwrap();
        let setup = self.setup(registry);
        Driver::resume(setup, run.clone(), &lease).await.unwrap().run().await.unwrap()
    }

    /// A new controller undoes the run, as `undo` does, through `moments`, all of which must come.
    pub async fn undo(&self, registry: Registry<World>, run: &RunId, moments: Moments) -> Outcome {
        let lease = self.journal.acquire(&self.id, "test", jiff::Timestamp::now()).await.unwrap();
        let moments = Arc::new(moments);
        let mut setup = self.setup(registry);
        setup.hooks = moments.clone();
        let ended = Driver::resume(setup, run.clone(), &lease).await.unwrap().undo("test").await;
        assert_eq!(moments.missed(), Vec::<String>::new());
        ended.unwrap()
    }

    fn setup(&self, registry: Registry<World>) -> Setup<World> {
        let journal: Arc<dyn Journal> = self.journal.clone();
        Setup::new(Arc::new(registry), journal, Arc::new(self.world()))
    }

    /// A switchover through `moments`.
    pub async fn switch_through(&self, direction: Direction, moments: Moments) -> (Outcome, Vec<Event>) {
        self.switch_with(direction, Vec::new(), moments).await
    }

    /// A switchover with other steps in the place of those of the same name.
    pub async fn switch_with(
        &self,
        direction: Direction,
        others: Vec<Arc<dyn Step<World>>>,
        moments: Moments,
    ) -> (Outcome, Vec<Event>) {
        let (run, ended) = self.begin_switch(direction, others, moments).await;
        self.tell(&run).await;
        (ended.unwrap(), self.journal.load(&run).await.unwrap())
    }

    /// [`Rig::switch_with`] that may also end with a dead controller.
    pub async fn begin_switch(
        &self,
        direction: Direction,
        others: Vec<Arc<dyn Step<World>>>,
        moments: Moments,
    ) -> (RunId, Result<Outcome, DriverError>) {
        let whole = switchover::runbook(direction).unwrap();
        for other in &others {
            assert!(whole.get(other.id()).is_some(), "there is no step {}", other.id());
        }
        let step = |step: &Arc<dyn Step<World>>| {
            others.iter().find(|other| other.id() == step.id()).unwrap_or(step).clone()
        };
        let registry = Registry::new(whole.kind(), whole.steps().iter().map(step).collect()).unwrap();
        let plan = switchover::plan(&registry, &self.id, &self.databases, &self.settings).unwrap();
        self.drive_through(registry, plan, moments).await
    }

    /// Prints what the journal has of a run; shown with a test that fails.
    pub async fn tell(&self, run: &RunId) {
        for event in self.journal.load(run).await.unwrap() {
            eprintln!("{:>10.3} {:?}", event.mono_ns as f64 / 1e6, event.body);
        }
    }

    /// The epoch of the run that is being driven.
    pub async fn epoch(&self) -> Epoch {
        self.journal.lease(&self.id).await.unwrap().unwrap().epoch
    }

    /// Where the proxy sends clients, and whether it holds them.
    pub async fn route(&self) -> (Side, bool) {
        let state = self.router().state().await.unwrap();
        (state.route, state.held_by.is_some())
    }

    /// Drops the proxy, as a kill would end it, and starts another one after `gap`. To be done at a moment of a run.
    pub fn replace_proxy(&mut self, gap: Duration) -> (impl Future<Output = ()> + Send + 'static, Replaced) {
        let (first, config) = (self.proxy.take().unwrap(), self.proxy_config());
        let second = Replaced::default();
        let place = second.0.clone();
        let act = async move {
            drop(first);
            later(gap, move || {
                let started =
                    wait_until("the proxy's place to be free", Duration::from_secs(5), async || {
                        Proxy::start(config.clone()).await
                    });
                let started = tokio::runtime::Handle::current().block_on(started);
                *place.lock().unwrap() = Some(started.unwrap());
            });
        };
        (act, second)
    }
}

/// The proxy that was started in another one's place.
#[derive(Default)]
pub struct Replaced(Arc<Mutex<Option<Proxy>>>);

impl Replaced {
    /// The second proxy, if it was needed and has started.
    pub fn take(&self) -> Option<Proxy> {
        self.0.lock().unwrap().take()
    }
}

/// Kills a cluster at once and has it started again after `gap`.
pub fn kill_and_restart(
    cluster: &Arc<pgteal_testkit::Cluster>,
    gap: Duration,
) -> impl Future<Output = ()> + Send + 'static {
    let cluster = cluster.clone();
    async move {
        cluster.kill9().unwrap();
        later(gap, move || {
            tokio::runtime::Handle::current().block_on(cluster.start()).unwrap();
        });
    }
}

/// Does `act` after `gap`, while the test goes on.
pub fn later(gap: Duration, act: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        tokio::time::sleep(gap).await;
        tokio::task::spawn_blocking(act).await.unwrap();
    });
}

/// The steps that began, in order.
pub fn started(events: &[Event]) -> Vec<String> {
    let began = events.iter().filter_map(|event| match &event.body {
        EventBody::Started { step } => Some(step.clone()),
        _ => None,
    });
    began.collect()
}

/// A fact that a step noted when it succeeded.
pub fn fact(events: &[Event], wanted: &str, key: &str) -> Option<serde_json::Value> {
    events.iter().rev().find_map(|event| match &event.body {
        EventBody::Succeeded { step, facts } if step == wanted => facts.get(key).cloned(),
        _ => None,
    })
}
