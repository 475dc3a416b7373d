//! What the cutover does not wait for: a look beside the guard, and successes that are written with what comes next.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use pgteal_saga::proof::Bench;
use pgteal_saga::proof::fake::FakeBench;
use pgteal_saga::state::Cause;
use pgteal_saga::{
    Cx, DeploymentId, Driver, Durability, Epoch, Event, EventBody, Feed, Journal, JournalError, Lease,
    MemoryJournal, Observation, Outcome, Registry, RunId, RunSummary, Setup, Step, StepError, StepKind, Stop,
    StopHandle, Update,
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::story;

/// A journal that notes each append: what was written in it and how durably, and how much the stream had told by then.
struct Noting {
    inner: Arc<MemoryJournal>,
    appends: Mutex<Vec<String>>,
    told: Mutex<tokio::sync::broadcast::Receiver<Update>>,
}

#[async_trait::async_trait]
impl Journal for Noting {
    async fn append(
        &self,
        run: &RunId,
        epoch: Epoch,
        expected_seq: u64,
        events: &[Event],
        durability: Durability,
    ) -> Result<u64, JournalError> {
        let told = self.told.lock().unwrap().len() as u64;
        let name = |event: &Event| {
            let already = if event.seq <= told { " (told)" } else { "" };
            format!("{} {}{already}", event.body.name(), event.body.step().unwrap_or_default())
        };
        let names: Vec<_> = events.iter().map(name).collect();
        self.appends.lock().unwrap().push(format!("{durability:?}: {}", names.join(", ")));
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

#[tokio::test(start_paused = true)]
async fn a_success_inside_the_section_is_told_at_once_and_written_with_the_next_record() {
    let bench = FakeBench::switch();
    let world = bench.fresh().await.unwrap();
    let plan = bench.plan(&world).await.unwrap();
    let inner = Arc::new(MemoryJournal::new());
    let lease = inner.take_lease(plan.deployment(), "one", story::beginning());
    let feed = Feed::new(64);
    let told = Mutex::new(feed.subscribe());
    let journal = Arc::new(Noting { inner, appends: Mutex::default(), told });
    let mut setup = Setup::new(bench.registry(), Arc::clone(&journal) as Arc<dyn Journal>, world);
    setup.observer = Arc::new(feed);
    let run = RunId::generate("switch").unwrap();
    let mut driver = Driver::create(setup, run.clone(), plan, &lease).await.unwrap();
    assert!(matches!(driver.run().await.unwrap(), Outcome::Waiting { .. }));
    assert_eq!(driver.state().seq(), journal.load(&run).await.unwrap().len() as u64);

    let appends = journal.appends.lock().unwrap();
    let wanted = [
        "Sync: started hold",
        "Deferred: succeeded hold (told), started drain",
        "Deferred: succeeded drain (told), started fence",
        "Deferred: succeeded fence (told), started marker",
        "Sync: succeeded marker (told), started repoint",
        "Deferred: succeeded repoint (told), started release",
        "Deferred: succeeded release",
        "Sync: started reverse",
        "Sync: succeeded reverse",
        "Sync: started look-around",
        "Sync: gate-waiting look-around",
    ];
    // Before them: the creation, and two steps of two records.
    assert_eq!(appends[5..], wanted, "{appends:#?}");
}

/// A step that takes ten milliseconds to look, and whose guard takes as long or refuses at once.
struct Slow {
    refuses: bool,
    applied: Mutex<bool>,
}

const LOOK: Duration = Duration::from_millis(10);

#[async_trait::async_trait]
impl Step<()> for Slow {
    fn id(&self) -> &'static str {
        "slow"
    }

    fn title(&self) -> &'static str {
        "look slowly"
    }

    async fn guard(&self, _world: &(), cx: &Cx) -> Result<(), StepError> {
        if self.refuses {
            return Err(StepError::refused("the guard", "no"));
        }
        sleep(LOOK).await;
        cx.note("guarded", true);
        Ok(())
    }

    async fn observe(&self, _world: &(), cx: &Cx) -> Result<Observation, StepError> {
        sleep(LOOK).await;
        cx.note("looked", true);
        Ok(if *self.applied.lock().unwrap() { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, _world: &(), _cx: &Cx) -> Result<(), StepError> {
        *self.applied.lock().unwrap() = true;
        Ok(())
    }
}

async fn drive(step: Slow) -> (Outcome, Duration, Vec<Event>) {
    let journal = Arc::new(MemoryJournal::new());
    let registry = Arc::new(Registry::new("up", vec![Arc::new(step) as Arc<dyn Step<()>>]).unwrap());
    let deployment = DeploymentId::generate();
    let lease = journal.take_lease(&deployment, "one", story::beginning());
    let plan = registry.plan(deployment, |_| Some(json!({}))).freeze().unwrap();
    let setup = Setup::new(registry, Arc::clone(&journal) as Arc<dyn Journal>, Arc::new(()));
    let run = RunId::generate("up").unwrap();
    let mut driver = Driver::create(setup, run.clone(), plan, &lease).await.unwrap();
    let began = Instant::now();
    let outcome = driver.run().await.unwrap();
    (outcome, began.elapsed(), journal.load(&run).await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_first_look_is_taken_while_the_guard_looks() {
    let (outcome, took, events) = drive(Slow { refuses: false, applied: Mutex::default() }).await;
    assert_eq!(outcome, Outcome::Done);
    // One for both before it starts, one after it was applied.
    assert_eq!(took.as_millis() / 10, 2, "{took:?}");
    let EventBody::Succeeded { facts, .. } = &events[2].body else { panic!("{events:?}") };
    assert_eq!(json!(facts), json!({"guarded": true, "looked": true}));
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_refuses_does_not_wait_for_the_look() {
    let (outcome, took, events) = drive(Slow { refuses: true, applied: Mutex::new(true) }).await;
    assert!(matches!(outcome, Outcome::Unwound { cause: Cause::Refused { .. } }), "{outcome:?}");
    assert!(took < LOOK, "{took:?}");
    let names: Vec<_> = events.iter().map(|event| event.body.name()).collect();
    assert_eq!(names, ["run-created", "failed", "finished"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_done_before_it_starts_is_recorded_and_not_applied() {
    let (outcome, took, events) = drive(Slow { refuses: false, applied: Mutex::new(true) }).await;
    assert_eq!((outcome, took.as_millis() / 10), (Outcome::Done, 1));
    let names: Vec<_> = events.iter().map(|event| event.body.name()).collect();
    assert_eq!(names, ["run-created", "started", "succeeded", "finished"]);
}

/// The point of no return, behind a hold: its guard says yes, but in the meantime something else has come.
struct Overdue(Mutex<Option<StopHandle>>);

#[async_trait::async_trait]
impl Step<()> for Overdue {
    fn id(&self) -> &'static str {
        "point"
    }

    fn title(&self) -> &'static str {
        "pass the point"
    }

    fn kind(&self) -> StepKind {
        StepKind::PointOfNoReturn
    }

    async fn guard(&self, _world: &(), _cx: &Cx) -> Result<(), StepError> {
        let handle = self.0.lock().unwrap().take();
        match handle {
            Some(handle) => handle.request(),
            None => tokio::time::advance(Duration::from_secs(3)).await,
        }
        Ok(())
    }

    async fn observe(&self, _world: &(), _cx: &Cx) -> Result<Observation, StepError> {
        Ok(Observation::NotDone)
    }

    async fn apply(&self, _world: &(), _cx: &Cx) -> Result<(), StepError> {
        panic!("the point was passed")
    }
}

/// A hold that lasts.
struct Held(Mutex<bool>);

#[async_trait::async_trait]
impl Step<()> for Held {
    fn id(&self) -> &'static str {
        "hold"
    }

    fn title(&self) -> &'static str {
        "hold"
    }

    async fn observe(&self, _world: &(), _cx: &Cx) -> Result<Observation, StepError> {
        Ok(if *self.0.lock().unwrap() { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, _world: &(), _cx: &Cx) -> Result<(), StepError> {
        *self.0.lock().unwrap() = true;
        Ok(())
    }

    async fn undo(&self, _world: &(), _cx: &Cx) -> Result<(), StepError> {
        *self.0.lock().unwrap() = false;
        Ok(())
    }
}

/// A run of these steps, which are one section of two seconds.
async fn section(steps: Vec<Arc<dyn Step<()>>>, stop: Stop) -> (Driver<()>, Arc<MemoryJournal>) {
    let (first, last) = (steps[0].id(), steps[steps.len() - 1].id());
    let registry = Arc::new(Registry::new("switch", steps).unwrap());
    let journal = Arc::new(MemoryJournal::new());
    let deployment = DeploymentId::generate();
    let lease = journal.take_lease(&deployment, "one", story::beginning());
    let plan = registry.plan(deployment, |_| Some(json!({}))).section(first, last, 2_000).freeze().unwrap();
    let mut setup = Setup::new(registry, Arc::clone(&journal) as Arc<dyn Journal>, Arc::new(()));
    setup.stop = stop;
    let run = RunId::generate("switch").unwrap();
    (Driver::create(setup, run, plan, &lease).await.unwrap(), journal)
}

#[tokio::test(start_paused = true)]
async fn a_deadline_or_a_stop_that_comes_while_the_guard_looks_keeps_the_point_from_being_passed() {
    for is_stop in [false, true] {
        let (handle, stop) = Stop::pair();
        let steps: Vec<Arc<dyn Step<()>>> =
            vec![Arc::new(Held(Mutex::default())), Arc::new(Overdue(Mutex::new(is_stop.then_some(handle))))];
        let (mut driver, journal) = section(steps, stop).await;
        let outcome = driver.run().await.unwrap();
        let events = journal.load(driver.run_id()).await.unwrap();
        let names: Vec<_> = events.iter().map(|event| event.body.name()).collect();
        // The success of the hold was held back until then.
        let why = if is_stop { "undo-requested" } else { "deadline" };
        let wanted = ["run-created", "started", "succeeded", why, "undo-started", "undone", "finished"];
        assert_eq!(names, wanted, "{outcome:?}");
    }
}

/// A step that takes ten milliseconds to look and is seen to be done at the second look after it was applied only.
struct Reluctant(Arc<Mutex<u32>>);

#[async_trait::async_trait]
impl Step<()> for Reluctant {
    fn id(&self) -> &'static str {
        "first"
    }

    fn title(&self) -> &'static str {
        "take two tries"
    }

    async fn observe(&self, _world: &(), _cx: &Cx) -> Result<Observation, StepError> {
        sleep(LOOK).await;
        Ok(if *self.0.lock().unwrap() >= 2 { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, _world: &(), _cx: &Cx) -> Result<(), StepError> {
        *self.0.lock().unwrap() += 1;
        Ok(())
    }
}

/// The step behind it, whose guard refuses for as long as the first is not done. It notes which attempt it was told.
struct Behind(Arc<Mutex<u32>>, Arc<Mutex<Vec<u32>>>);

#[async_trait::async_trait]
impl Step<()> for Behind {
    fn id(&self) -> &'static str {
        "second"
    }

    fn title(&self) -> &'static str {
        "come behind"
    }

    async fn guard(&self, _world: &(), cx: &Cx) -> Result<(), StepError> {
        self.1.lock().unwrap().push(cx.attempt());
        sleep(LOOK).await;
        match *self.0.lock().unwrap() {
            2.. => Ok(()),
            _ => Err(StepError::refused("the guard", "the first step is not done")),
        }
    }

    async fn observe(&self, _world: &(), _cx: &Cx) -> Result<Observation, StepError> {
        sleep(LOOK).await;
        Ok(if *self.0.lock().unwrap() >= 3 { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, _world: &(), _cx: &Cx) -> Result<(), StepError> {
        *self.0.lock().unwrap() += 1;
        Ok(())
    }
}

/// A section of the two steps, the first of which was applied `before` times already.
async fn drive_section(before: u32) -> (Outcome, Duration, Vec<u32>) {
    let (count, attempts) = (Arc::new(Mutex::new(before)), Arc::new(Mutex::default()));
    let steps: Vec<Arc<dyn Step<()>>> =
        vec![Arc::new(Reluctant(Arc::clone(&count))), Arc::new(Behind(count, Arc::clone(&attempts)))];
    let (mut driver, _journal) = section(steps, Stop::never()).await;
    let began = Instant::now();
    let outcome = driver.run().await.unwrap();
    let attempts = attempts.lock().unwrap().clone();
    (outcome, began.elapsed(), attempts)
}

#[tokio::test(start_paused = true)]
async fn in_the_section_the_next_step_is_entered_while_the_last_is_looked_at() {
    let (outcome, took, attempts) = drive_section(1).await;
    // The first look, the second look beside the next one's guard and first look, and that one's last look.
    assert_eq!((outcome, took.as_millis() / 10), (Outcome::Done, 3));
    assert_eq!(attempts, [1]);
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_behind_a_step_that_is_not_done_does_not_count() {
    let (outcome, _, attempts) = drive_section(0).await;
    assert_eq!(outcome, Outcome::Done);
    // Asked beside each look at the first step, and told that it is its own first attempt.
    assert_eq!(attempts, [1, 1]);
}

/// A step whose apply changes nothing, and whose guard refuses from the second time on.
struct Fickle(Mutex<u32>);

#[async_trait::async_trait]
impl Step<()> for Fickle {
    fn id(&self) -> &'static str {
        "fickle"
    }

    fn title(&self) -> &'static str {
        "change nothing"
    }

    async fn guard(&self, _world: &(), _cx: &Cx) -> Result<(), StepError> {
        let mut asked = self.0.lock().unwrap();
        *asked += 1;
        if *asked > 1 { Err(StepError::refused("the guard", "the hold is lost")) } else { Ok(()) }
    }

    async fn observe(&self, _world: &(), _cx: &Cx) -> Result<Observation, StepError> {
        Ok(Observation::NotDone)
    }

    async fn apply(&self, _world: &(), _cx: &Cx) -> Result<(), StepError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_refuses_the_second_try_ends_the_section_before_its_deadline() {
    let steps: Vec<Arc<dyn Step<()>>> =
        vec![Arc::new(Held(Mutex::default())), Arc::new(Fickle(Mutex::default()))];
    let (mut driver, _journal) = section(steps, Stop::never()).await;
    let began = Instant::now();
    let outcome = driver.run().await.unwrap();
    assert!(matches!(outcome, Outcome::Unwound { cause: Cause::Refused { .. } }), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}
