//! What a plan may look like, what freezing it means, and which plans a program refuses to drive.

use crate::story;
use std::sync::Arc;

use pgteal_saga::proof::Bench;
use pgteal_saga::proof::fake::{FakeBench, FakeWorld};
use pgteal_saga::{
    Driver, DriverError, Durability, Event, EventBody, Journal, MemoryJournal, Plan, RunId, Section, Setup,
    stored,
};

#[test]
fn the_shape_of_a_plan_is_checked() {
    let cases = [
        ("ege", Ok(())),
        ("e[tep]fg", Ok(())),
        ("[ee]g", Ok(())),
        ("", Err("a plan has 1 to 256 steps, this one has 0")),
        ("pp", Err("one point of no return")),
        ("f", Err("come after the point of no return")),
        ("pe", Err("only forward-only steps and gates")),
        ("pt", Err("only forward-only steps and gates")),
        ("[ege]", Err("nobody may be waited for inside it")),
        ("e[pf]", Err("is not a stretch of the plan")),
        ("p[f]", Err("is not a stretch of the plan")),
    ];
    for (kinds, wanted) in cases {
        match (Plan::freeze(story::draft(kinds)), wanted) {
            (Ok(plan), Ok(())) => plan.check().unwrap(),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{kinds}: {error}"),
            (found, _) => panic!("{kinds}: {found:?}"),
        }
    }
    let mut draft = story::draft("eee");
    draft.section = Some(Section { first: "c".into(), last: "a".into(), bound_ms: 1 });
    Plan::freeze(draft.clone()).unwrap_err();
    draft.section = Some(Section { first: "a".into(), last: "c".into(), bound_ms: 0 });
    Plan::freeze(draft.clone()).unwrap_err();
    draft.section = None;
    draft.steps[2].id = "a".into();
    Plan::freeze(draft.clone()).unwrap_err();
    draft.steps[2].id = "c".into();
    draft.retry.attempts = 0;
    Plan::freeze(draft).unwrap_err();
}

#[test]
fn the_hash_hangs_on_everything_but_the_order_of_keys() {
    let frozen = story::plan("e[ep]f");
    let mut same = story::draft("e[ep]f");
    same.steps[0].params = serde_json::json!({"b": 0.1, "a": [1, {"y": 1, "x": 2}]});
    let mut sorted = same.clone();
    sorted.steps[0].params = serde_json::from_str(r#"{"a": [1, {"x": 2, "y": 1}], "b": 0.1}"#).unwrap();
    assert_eq!(Plan::freeze(same.clone()).unwrap().hash(), Plan::freeze(sorted).unwrap().hash());
    assert_ne!(Plan::freeze(same).unwrap().hash(), frozen.hash());
    let mut other = story::draft("e[ep]f");
    other.retry.attempts += 1;
    assert_ne!(Plan::freeze(other).unwrap().hash(), frozen.hash());
}

/// Writes the first event of a run to a journal with `change` made to its stored line, and tries to resume it.
async fn resumed(bench: &FakeBench, change: impl Fn(String) -> String) -> DriverError {
    let world = Arc::new(FakeWorld::new());
    let plan = bench.plan(&world).await.unwrap();
    let journal = Arc::new(MemoryJournal::new());
    let lease = journal.take_lease(plan.deployment(), "one", story::beginning());
    let run = RunId::parse("up-x").unwrap();
    let created: Event = story::event(1, 1, EventBody::RunCreated { plan });
    journal.append(&run, lease.epoch, 0, &[created], Durability::Sync).await.unwrap();
    journal.damage(&run, |lines| {
        let line = change(lines[0].0.clone());
        let link = stored::link("", &line);
        lines[0] = (line, link);
    });
    let setup = Setup::new(FakeBench::up().registry(), Arc::clone(&journal) as Arc<dyn Journal>, world);
    let error = Driver::resume(setup, run.clone(), &lease).await.unwrap_err();
    assert_eq!(journal.load(&run).await.unwrap().len(), 1);
    error
}

#[tokio::test]
async fn a_plan_that_is_not_what_was_frozen_or_not_known_is_refused() {
    let up = FakeBench::up();
    type Change = fn(String) -> String;
    let cases: [(&FakeBench, Change, &str); 5] = [
        (&up, |line| line.replace("\"attempts\":3", "\"attempts\":4"), "but its contents give"),
        (&up, |line| line.replace("\"id\":\"schema\"", "\"id\":\"scheme\""), "but its contents give"),
        (&up, |line| line.replace("\"engine\":1", "\"engine\":2"), "frozen by engine version 2"),
        (&up, |line| line.replace("\"kind\":\"up\"", "\"kind\":\"down\""), "but its contents give"),
        (&FakeBench::switch(), |line| line, "is for a run of kind switch, not up"),
    ];
    for (bench, change, wanted) in cases {
        let error = resumed(bench, change).await;
        assert!(matches!(error, DriverError::Plan { .. }), "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn a_plan_with_a_step_that_is_gone_or_changed_is_refused() {
    let world = FakeWorld::new();
    let plan = FakeBench::up().plan(&world).await.unwrap();
    for (without, kinds) in [(Some("schema"), "knows no step schema"), (None, "planned as another kind")] {
        let steps: Vec<_> = FakeBench::up()
            .registry()
            .steps()
            .iter()
            .filter(|step| Some(step.id()) != without)
            .map(|step| match (without, step.id()) {
                (None, "schema") => Arc::new(Gate) as Arc<dyn pgteal_saga::Step<FakeWorld>>,
                _ => Arc::clone(step),
            })
            .collect();
        let registry = pgteal_saga::Registry::new("up", steps).unwrap();
        let error = registry.check(&plan).unwrap_err().to_string();
        assert!(error.contains(kinds), "{error}");
    }
}

#[test]
fn a_registry_knows_each_step_once_and_syncs_its_point_of_no_return() {
    let schema = || Arc::new(Gate) as Arc<dyn pgteal_saga::Step<FakeWorld>>;
    let point = || Arc::new(DeferredPoint) as Arc<dyn pgteal_saga::Step<FakeWorld>>;
    let refused = |kind, steps| pgteal_saga::Registry::new(kind, steps).unwrap_err().to_string();
    assert!(refused("up", vec![schema(), schema()]).contains("two steps schema"));
    assert!(refused("Up!", vec![schema()]).contains("\"Up!\""));
    assert!(refused("up", vec![schema(), point()]).contains("must be durable at once"));
}

/// A point of no return that does not wait for the disk.
struct DeferredPoint;

#[async_trait::async_trait]
impl pgteal_saga::Step<FakeWorld> for DeferredPoint {
    fn id(&self) -> &'static str {
        "repoint"
    }

    fn title(&self) -> &'static str {
        "repoint"
    }

    fn kind(&self) -> pgteal_saga::StepKind {
        pgteal_saga::StepKind::PointOfNoReturn
    }

    fn durability(&self) -> Durability {
        Durability::Deferred
    }

    async fn observe(
        &self,
        _world: &FakeWorld,
        _cx: &pgteal_saga::Cx,
    ) -> Result<pgteal_saga::Observation, pgteal_saga::StepError> {
        Ok(pgteal_saga::Observation::Done)
    }

    async fn apply(&self, _world: &FakeWorld, _cx: &pgteal_saga::Cx) -> Result<(), pgteal_saga::StepError> {
        Ok(())
    }
}

/// What the step `schema` has become.
struct Gate;

#[async_trait::async_trait]
impl pgteal_saga::Step<FakeWorld> for Gate {
    fn id(&self) -> &'static str {
        "schema"
    }

    fn title(&self) -> &'static str {
        "schema"
    }

    fn kind(&self) -> pgteal_saga::StepKind {
        pgteal_saga::StepKind::Gate
    }

    async fn observe(
        &self,
        _world: &FakeWorld,
        _cx: &pgteal_saga::Cx,
    ) -> Result<pgteal_saga::Observation, pgteal_saga::StepError> {
        Ok(pgteal_saga::Observation::Done)
    }

    async fn apply(&self, _world: &FakeWorld, _cx: &pgteal_saga::Cx) -> Result<(), pgteal_saga::StepError> {
        Ok(())
    }
}
