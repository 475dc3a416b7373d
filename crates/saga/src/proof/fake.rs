//! A world of named objects with owners, steps over it, and benches with flaws that the kit must find.
//! Refuses to resemble any real system further than that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::cx::Cx;
use crate::fault::StepError;
use crate::ids::DeploymentId;
use crate::journal::Durability;
use crate::plan::{Plan, Retry};
use crate::proof::bench::Bench;
use crate::registry::Registry;
use crate::step::{Observation, Step, StepKind};

/// A world of objects, each with the deployment that owns it.
#[derive(Debug)]
pub struct FakeWorld {
    deployment: DeploymentId,
    objects: Mutex<BTreeMap<&'static str, String>>,
    passing: Mutex<BTreeMap<&'static str, bool>>,
}

impl FakeWorld {
    /// A world with a few objects that belong to somebody else.
    pub fn new() -> Self {
        let objects = BTreeMap::from([("theirs", "somebody".to_owned())]);
        Self { deployment: DeploymentId::generate(), objects: Mutex::new(objects), passing: Mutex::default() }
    }

    /// The deployment whose runs this world sees.
    pub fn deployment(&self) -> &DeploymentId {
        &self.deployment
    }

    /// Whether an object is there.
    pub fn has(&self, name: &str) -> bool {
        self.objects().contains_key(name)
    }

    /// Puts an object of somebody else there.
    pub fn occupy(&self, name: &'static str) {
        self.objects().insert(name, "somebody".into());
    }

    /// Takes an object away, whoever owns it.
    pub fn take_away(&self, name: &str) {
        self.objects().remove(name);
    }

    /// Every object, and whether it is ours.
    pub fn picture(&self) -> Value {
        let owner = |owner: &String| if owner == self.deployment.as_str() { "ours" } else { "theirs" };
        self.objects().iter().map(|(name, by)| ((*name).to_owned(), json!(owner(by)))).collect()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn passing(&self) -> MutexGuard<'_, BTreeMap<&'static str, bool>> {
        self.passing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for FakeWorld {
    fn default() -> Self {
        Self::new()
    }
}

/// A mistake in a step that the kit must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// `apply` refuses when a part of its effect is there already.
    ApplyOnce,
    /// `undo` leaves the last object behind.
    UndoForgets,
    /// `undo` fails when an object is not there.
    UndoOnce,
    /// `observe` looks at the first object only.
    ObserveGlances,
    /// `undo` takes away what is not ours.
    UndoGreedy,
}

/// A step that makes objects and takes others away.
#[derive(Debug, Clone, Copy)]
pub struct FakeStep {
    id: &'static str,
    kind: StepKind,
    durability: Durability,
    makes: &'static [&'static str],
    takes: &'static [&'static str],
    needs: &'static [&'static str],
    /// What must be gone before it can be undone.
    under: &'static [&'static str],
    flaw: Option<Flaw>,
}

impl FakeStep {
    const fn new(id: &'static str, kind: StepKind, makes: &'static [&'static str]) -> Self {
        Self { id, kind, durability: Durability::Sync, makes, takes: &[], needs: &[], under: &[], flaw: None }
    }

    const fn deferred(mut self) -> Self {
        self.durability = Durability::Deferred;
        self
    }

    const fn taking(mut self, takes: &'static [&'static str]) -> Self {
        self.takes = takes;
        self
    }

    const fn needing(mut self, needs: &'static [&'static str]) -> Self {
        self.needs = needs;
        self
    }

    const fn under(mut self, under: &'static [&'static str]) -> Self {
        self.under = under;
        self
    }

    fn is_ours(&self, world: &FakeWorld, cx: &Cx, name: &str) -> Option<bool> {
        world.objects().get(name).map(|owner| owner == cx.deployment().as_str())
    }
}

/// Lets other things happen in between, as a network would.
async fn breathe() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[async_trait]
impl Step<FakeWorld> for FakeStep {
    fn id(&self) -> &'static str {
        self.id
    }

    fn title(&self) -> &'static str {
        self.id
    }

    fn kind(&self) -> StepKind {
        self.kind
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    async fn guard(&self, world: &FakeWorld, cx: &Cx) -> Result<(), StepError> {
        breathe().await;
        let missing = self.needs.iter().find(|name| self.is_ours(world, cx, name) != Some(true));
        match missing {
            Some(name) => Err(StepError::refused(*name, "it is not there")),
            None => Ok(()),
        }
    }

    async fn observe(&self, world: &FakeWorld, cx: &Cx) -> Result<Observation, StepError> {
        breathe().await;
        if self.kind == StepKind::Transient {
            let done = world.passing().get(self.id).copied().unwrap_or_default();
            return Ok(if done { Observation::Done } else { Observation::NotDone });
        }
        if self.kind == StepKind::Gate {
            return Ok(Observation::NotDone);
        }
        let glance = if self.flaw == Some(Flaw::ObserveGlances) { 1 } else { self.makes.len() };
        for name in &self.makes[..glance.min(self.makes.len())] {
            match self.is_ours(world, cx, name) {
                None => return Ok(Observation::NotDone),
                Some(false) => return Ok(Observation::Foreign((*name).to_owned())),
                Some(true) => {}
            }
        }
        let all_taken = self.takes.iter().all(|name| !world.has(name));
        Ok(if all_taken { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &FakeWorld, cx: &Cx) -> Result<(), StepError> {
        if self.kind == StepKind::Transient {
            world.passing().insert(self.id, true);
        }
        for name in self.makes {
            breathe().await;
            let ours = self.is_ours(world, cx, name);
            if ours == Some(false) || (ours.is_some() && self.flaw == Some(Flaw::ApplyOnce)) {
                return Err(StepError::refused(*name, "it is there already"));
            }
            world.objects().insert(name, cx.deployment().to_string());
        }
        for name in self.takes {
            breathe().await;
            world.objects().remove(name);
        }
        cx.note("made", self.makes.len());
        Ok(())
    }

    async fn undo(&self, world: &FakeWorld, cx: &Cx) -> Result<(), StepError> {
        if let Some(name) = self.under.iter().find(|name| self.is_ours(world, cx, name) == Some(true)) {
            return Err(StepError::refused(*name, "it is still there"));
        }
        let forgotten = usize::from(self.flaw == Some(Flaw::UndoForgets));
        for name in self.makes.iter().skip(forgotten).rev() {
            breathe().await;
            match self.is_ours(world, cx, name) {
                Some(true) => {}
                None if self.flaw == Some(Flaw::UndoOnce) => {
                    return Err(StepError::unknown(*name, "it is not there"));
                }
                Some(false) if self.flaw == Some(Flaw::UndoGreedy) => {}
                _ => continue,
            }
            world.objects().remove(name);
        }
        Ok(())
    }
}

/// A run that prepares and can be undone to its end.
pub const UP: [FakeStep; 5] = [
    FakeStep::new("check", StepKind::Transient, &[]),
    FakeStep::new("provision", StepKind::Effect, &["server"]).under(&["table-a", "slot"]),
    FakeStep::new("schema", StepKind::Effect, &["table-a", "table-b", "table-c"]),
    FakeStep::new("approve", StepKind::Gate, &[]),
    FakeStep::new("subscribe", StepKind::Effect, &["slot", "subscription"]),
];

/// A run with a section and a point of no return.
pub const SWITCH: [FakeStep; 10] = [
    FakeStep::new("reverse-slot", StepKind::Effect, &["reverse-slot"]),
    FakeStep::new("calm", StepKind::Transient, &[]),
    FakeStep::new("hold", StepKind::Effect, &["hold"]).under(&["fence-trigger"]),
    FakeStep::new("drain", StepKind::Transient, &[]).deferred().needing(&["hold"]),
    FakeStep::new("fence", StepKind::Effect, &["fence-trigger", "fence-setting"])
        .deferred()
        .needing(&["hold"]),
    FakeStep::new("marker", StepKind::Transient, &[]).deferred().needing(&["hold", "fence-trigger"]),
    FakeStep::new("repoint", StepKind::PointOfNoReturn, &["route-a", "route-b"]).needing(&[
        "hold",
        "fence-trigger",
        "fence-setting",
    ]),
    FakeStep::new("release", StepKind::ForwardOnly, &[]).taking(&["hold"]).deferred(),
    FakeStep::new("reverse", StepKind::ForwardOnly, &["reverse-subscription"]),
    FakeStep::new("look-around", StepKind::Gate, &[]),
];

/// A bench over fake worlds.
#[derive(Debug, Clone)]
pub struct FakeBench {
    kind: &'static str,
    steps: Vec<FakeStep>,
    section: Option<(&'static str, &'static str)>,
}

impl FakeBench {
    /// Over [`UP`].
    pub fn up() -> Self {
        Self { kind: "up", steps: UP.to_vec(), section: None }
    }

    /// Over [`SWITCH`].
    pub fn switch() -> Self {
        Self { kind: "switch", steps: SWITCH.to_vec(), section: Some(("hold", "release")) }
    }

    /// With a flaw in one step.
    #[must_use]
    pub fn with_flaw(mut self, step: &str, flaw: Flaw) -> Self {
        for fake in self.steps.iter_mut().filter(|fake| fake.id == step) {
            fake.flaw = Some(flaw);
        }
        self
    }
}

#[async_trait]
impl Bench for FakeBench {
    type World = FakeWorld;

    fn registry(&self) -> Arc<Registry<FakeWorld>> {
        let step = |fake: &FakeStep| Arc::new(*fake) as Arc<dyn Step<FakeWorld>>;
        let steps = self.steps.iter().map(step).collect();
        // The names above are good; an empty registry would fail every case.
        Arc::new(Registry::new(self.kind, steps).unwrap_or_else(|_| Registry::empty(self.kind)))
    }

    async fn fresh(&self) -> Result<Arc<FakeWorld>, String> {
        Ok(Arc::new(FakeWorld::new()))
    }

    async fn plan(&self, world: &FakeWorld) -> Result<Plan, String> {
        let retry = Retry { attempts: 3, first_ms: 10, max_ms: 40, total_ms: 1_000 };
        let plan =
            self.registry().plan(world.deployment().clone(), |_| Some(json!({}))).retry(retry, Retry::SHORT);
        let plan = match self.section {
            Some((first, last)) => plan.section(first, last, 2_000),
            None => plan,
        };
        plan.freeze().map_err(|error| error.to_string())
    }

    async fn picture(&self, world: &FakeWorld) -> Result<Value, String> {
        Ok(world.picture())
    }

    async fn occupy(&self, world: &FakeWorld, step: &str) -> Result<bool, String> {
        let name = self.steps.iter().find(|fake| fake.id == step).and_then(|fake| fake.makes.last());
        Ok(name.inspect(|name| world.occupy(name)).is_some())
    }

    async fn lose(&self, world: &FakeWorld, step: &str) -> Result<bool, String> {
        let name = self.steps.iter().find(|fake| fake.id == step).and_then(|fake| fake.makes.first());
        Ok(name.inspect(|name| world.take_away(name)).is_some())
    }
}
