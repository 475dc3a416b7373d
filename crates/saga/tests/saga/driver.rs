//! What the driver promises to those who call it, and the times it keeps. The kit has the rest.

use std::sync::Arc;
use std::time::Duration;

use pgteal_saga::event::Doing;
use pgteal_saga::state::Cause;
use pgteal_saga::{
    Cx, DeploymentId, Driver, DriverError, Feed, Journal, MemoryJournal, Observation, Outcome, Registry,
    Retry, RunId, Setup, Step, StepError, StepKind, Stop, Update,
};
use serde_json::json;
use tokio::time::Instant;

use crate::story;

/// What a step does: a word for `apply` and one for `undo`.
#[derive(Clone, Copy)]
struct Scripted(&'static str, StepKind, &'static str, &'static str);

/// Which steps are done.
type World = std::sync::Mutex<std::collections::BTreeSet<&'static str>>;

#[async_trait::async_trait]
impl Step<World> for Scripted {
    fn id(&self) -> &'static str {
        self.0
    }

    fn title(&self) -> &'static str {
        "do as scripted"
    }

    fn kind(&self) -> StepKind {
        self.1
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let done = world.lock().unwrap().contains(self.0);
        Ok(if done { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        match self.2 {
            "hang" => std::future::pending().await,
            "wait" => {
                cx.report(Some("table t"), "copying", Some(3), Some(7), "rows");
                cx.stop().requested().await;
                return Err(StepError::Stopped);
            }
            "lie" => return Err(StepError::Stopped),
            "count" => {
                cx.note("attempt", cx.attempt());
                if cx.attempt() < 3 {
                    return Err(StepError::unknown("slot s", "no answer").with_status("inactive"));
                }
            }
            "params" => drop(cx.params::<u64>()?),
            _ => {}
        }
        world.lock().unwrap().insert(self.0);
        Ok(())
    }

    async fn undo(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        if self.3 == "fail" {
            return Err(StepError::unknown("slot s", "in use"));
        }
        world.lock().unwrap().remove(self.0);
        Ok(())
    }
}

struct Stage {
    journal: Arc<MemoryJournal>,
    setup: Setup<World>,
    run: RunId,
    driver: Driver<World>,
}

async fn stage(steps: &[Scripted], section: Option<(&str, &str)>, stop: Stop) -> Stage {
    let journal = Arc::new(MemoryJournal::new());
    let steps = steps.iter().map(|step| Arc::new(*step) as Arc<dyn Step<World>>).collect();
    let registry = Arc::new(Registry::new("up", steps).unwrap());
    let deployment = DeploymentId::generate();
    let lease = journal.take_lease(&deployment, "one", story::beginning());
    let retry = Retry { attempts: 3, first_ms: 1_000, max_ms: 4_000, total_ms: 60_000 };
    let mut plan = registry.plan(deployment, |_| Some(json!("seven"))).retry(retry, Retry::SHORT);
    if let Some((first, last)) = section {
        plan = plan.section(first, last, 2_000);
    }
    let run = RunId::generate("up").unwrap();
    let mut setup =
        Setup::new(registry, Arc::clone(&journal) as Arc<dyn Journal>, Arc::new(World::default()));
    setup.stop = stop;
    let driver = Driver::create(setup.clone(), run.clone(), plan.freeze().unwrap(), &lease).await.unwrap();
    Stage { journal, setup, run, driver }
}

const E: StepKind = StepKind::Effect;

#[tokio::test(start_paused = true)]
async fn a_step_that_hangs_is_cut_at_the_deadline_to_the_millisecond() {
    let steps =
        [Scripted("hold", E, "", ""), Scripted("fence", E, "hang", ""), Scripted("release", E, "", "")];
    let mut stage = stage(&steps, Some(("hold", "release")), Stop::never()).await;
    let began = Instant::now();
    let outcome = stage.driver.run().await.unwrap();
    let Outcome::Unwound { cause: Cause::Deadline { step, elapsed_ms, .. } } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!((step.as_str(), elapsed_ms), ("fence", 2_000));
    assert!(began.elapsed() - Duration::from_secs(2) < Duration::from_millis(5), "{:?}", began.elapsed());
    assert!(stage.setup.world.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn tries_wait_as_planned_and_are_counted() {
    let mut stage = stage(&[Scripted("a", E, "count", "")], None, Stop::never()).await;
    let began = Instant::now();
    assert_eq!(stage.driver.run().await.unwrap(), Outcome::Done);
    assert_eq!(began.elapsed().as_secs(), 3);
    let events = stage.journal.load(&stage.run).await.unwrap();
    let names: Vec<_> = events.iter().map(|event| event.body.name()).collect();
    assert_eq!(names, ["run-created", "started", "failed", "failed", "succeeded", "finished"]);
    let pgteal_saga::EventBody::Succeeded { facts, .. } = &events[4].body else { panic!("{events:?}") };
    assert_eq!(facts["attempt"], 3);
    assert_eq!(pgteal_saga::timeline::timeline(&events)[0].micros(), Some(3_000_000));
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_ends_when_the_operator_stops_and_goes_on_later() {
    let (handle, stop) = Stop::pair();
    let steps = [Scripted("copy", E, "wait", ""), Scripted("b", E, "", "")];
    let mut stage = stage(&steps, None, stop).await;
    let feed = Feed::new(64);
    let mut updates = feed.subscribe();
    stage.setup.observer = Arc::new(feed);
    let lease = stage.journal.lease(stage.driver.state().plan().deployment()).await.unwrap().unwrap();
    let mut driver = Driver::resume(stage.setup.clone(), stage.run.clone(), &lease).await.unwrap();
    let task = tokio::spawn(async move { driver.run().await });
    loop {
        if let Update::Progress(progress) = updates.recv().await.unwrap() {
            assert_eq!(
                (progress.item.as_deref(), progress.done, progress.unit),
                (Some("table t"), Some(3), "rows")
            );
            break;
        }
    }
    handle.request();
    assert_eq!(task.await.unwrap().unwrap(), Outcome::Stopped);
    let mut names = Vec::new();
    while let Ok(update) = updates.try_recv() {
        if let Update::Event(_, event) = update {
            names.push(event.body.name());
        }
    }
    assert_eq!(names, ["stopped"]);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_stops_unasked_is_tried_again() {
    let mut stage = stage(&[Scripted("a", E, "lie", "")], None, Stop::never()).await;
    let outcome = stage.driver.run().await.unwrap();
    let Outcome::Stuck { step, doing: Doing::Apply, failure } = outcome else { panic!("{outcome:?}") };
    assert_eq!((step.as_str(), failure.what.as_str()), ("a", "it stopped, but nobody wanted it to"));
}

#[tokio::test(start_paused = true)]
async fn parameters_of_another_shape_are_refused() {
    let mut stage = stage(&[Scripted("a", E, "params", "")], None, Stop::never()).await;
    let outcome = stage.driver.run().await.unwrap();
    let Outcome::Unwound { cause: Cause::Refused { failure, .. } } = outcome else { panic!("{outcome:?}") };
    assert!(failure.to_string().contains("plan of a: parameters do not fit"), "{failure}");
}

/// The way back that a stop began inside the section is not hurried on by that same stop.
#[tokio::test(start_paused = true)]
async fn a_stop_inside_the_section_waits_between_tries_to_undo() {
    let (handle, stop) = Stop::pair();
    let steps =
        [Scripted("slot", E, "", "fail"), Scripted("hold", E, "hang", ""), Scripted("release", E, "", "")];
    let mut stage = stage(&steps, Some(("hold", "release")), stop).await;
    let began = Instant::now();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        handle.request();
    });
    let outcome = stage.driver.run().await.unwrap();
    let Outcome::Stuck { step, doing: Doing::Undo, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(step, "slot");
    assert_eq!(began.elapsed().as_millis() / 100, 35, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_of_a_run_is_refused() {
    let mut one =
        stage(&[Scripted("a", E, "", ""), Scripted("ask", StepKind::Gate, "none", "")], None, Stop::never())
            .await;
    let not_there = one.driver.open_gate("ask", "ann").await.unwrap_err();
    assert!(not_there.to_string().contains("does not wait at ask: it is going forward at a"), "{not_there}");

    let stranger = one.journal.take_lease(&DeploymentId::generate(), "two", story::beginning());
    let other = Driver::resume(one.setup.clone(), one.run.clone(), &stranger).await.unwrap_err();
    assert!(matches!(other, DriverError::OtherLease { .. }), "{other}");

    assert!(matches!(
        one.driver.undo("ann").await.unwrap(),
        Outcome::Unwound { cause: Cause::Operator { .. } }
    ));
    let again = one.driver.undo("ann").await.unwrap_err();
    assert!(again.to_string().contains("unwound already"), "{again}");
    assert!(matches!(one.driver.run().await.unwrap(), Outcome::Unwound { .. }));

    let mut two = stage(&[Scripted("p", StepKind::PointOfNoReturn, "", "")], None, Stop::never()).await;
    assert_eq!(two.driver.run().await.unwrap(), Outcome::Done);
    let late = two.driver.undo("ann").await.unwrap_err();
    assert!(late.to_string().contains("past the point of no return"), "{late}");
}

/// The other process of this test is the test itself, told by the variable where to end.
#[test]
fn the_real_hook_kills_the_process_at_its_moment_and_at_no_other() {
    use pgteal_saga::hooks::AbortAt;
    use pgteal_saga::{CrashPoint, Hooks};
    use std::os::unix::process::ExitStatusExt;

    if std::env::var(AbortAt::VARIABLE).is_ok() {
        let hook = AbortAt::from_env().unwrap();
        hook.reached("switch", "fence", CrashPoint::Started);
        hook.reached("back", "fence", CrashPoint::Applied);
        hook.reached("switch", "hold", CrashPoint::Applied);
        hook.reached("switch", "fence", CrashPoint::Applied);
        return;
    }
    let name = std::thread::current().name().unwrap().to_owned();
    let told = |at: &str| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &name]).env(AbortAt::VARIABLE, at).env("RUST_BACKTRACE", "0");
        command.output().unwrap().status
    };
    assert_eq!(told("switch/fence/applied").signal(), Some(6));
    assert!(told("switch/fence/succeeded").success());
    assert_eq!(told("switch/fence/never").code(), Some(101));
}
