//! Who watches the watchmen: a cutover with one thing broken on purpose. Where the runbook's own guards look, it refuses
//! and unwinds; where they are blindfolded too, the oracle or the comparison of tables must see the damage.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pgteal_core::deployment::{Direction, Side, Stream, stream_name};
use pgteal_core::progress::silent;
use pgteal_core::switchover;
use pgteal_core::world::World;
use pgteal_postgres::fence::Fence;
use pgteal_postgres::marker;
use pgteal_saga::driver::Outcome;
use pgteal_saga::state::Cause;
use pgteal_saga::{CrashPoint, Cx, Durability, Failure, Observation, Step, StepError, StepKind};
use pgteal_testkit::Cut;
use rig::{Moments, Rig};

const SWITCH: Direction = Direction::SWITCH;

/// How much a broken step still does.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Nothing,
    /// What it should, but nobody looks whether it worked.
    Apply,
    /// Writes the marker and does not wait for it.
    WriteMarker,
}

/// A step that says it is done, and does not look before.
struct Blind {
    inner: Arc<dyn Step<World>>,
    does: Does,
    said: AtomicBool,
}

fn blind(id: &str, does: Does) -> Arc<dyn Step<World>> {
    let inner = switchover::runbook(SWITCH).unwrap().get(id).unwrap().clone();
    Arc::new(Blind { inner, does, said: AtomicBool::new(false) })
}

#[async_trait]
impl Step<World> for Blind {
    fn id(&self) -> &'static str {
        self.inner.id()
    }

    fn title(&self) -> &'static str {
        self.inner.title()
    }

    fn kind(&self) -> StepKind {
        self.inner.kind()
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    async fn observe(&self, _world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let said = self.said.load(Ordering::SeqCst);
        Ok(if said { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        match self.does {
            Does::Nothing => {}
            Does::Apply => self.inner.apply(world, cx).await?,
            Does::WriteMarker => {
                for database in &world.databases {
                    let session = world.blue.server.warm(&database.name).await.unwrap();
                    marker::write(&session).await.unwrap();
                }
            }
        }
        self.said.store(true, Ordering::SeqCst);
        Ok(())
    }

    async fn undo(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        if self.does == Does::Apply {
            self.inner.undo(world, cx).await?;
        }
        self.said.store(false, Ordering::SeqCst);
        Ok(())
    }
}

/// A repoint that relies on what earlier steps said.
struct Credulous;

#[async_trait]
impl Step<World> for Credulous {
    fn id(&self) -> &'static str {
        "repoint"
    }

    fn title(&self) -> &'static str {
        "repoint without a look"
    }

    fn kind(&self) -> StepKind {
        StepKind::PointOfNoReturn
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let there = world.routers[0].state().await.unwrap().route == Side::Green;
        Ok(if there { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let fence = Fence::new(world.deployment.as_str(), "pgteal");
        for database in &world.databases {
            let session = world.green.server.warm(&database.name).await.unwrap();
            fence.lower(&session, cx.epoch().0.cast_signed()).await.unwrap();
        }
        let (router, epoch) = (&world.routers[0], cx.epoch().0);
        router.settle(epoch, Duration::from_millis(500)).await.unwrap();
        router.repoint(Side::Green, epoch).await.unwrap();
        Ok(())
    }
}

/// These broken steps and a repoint that lowers the fence by itself, so that nothing of it may be staged.
fn and_credulous(mut broken: Vec<Arc<dyn Step<World>>>) -> Vec<Arc<dyn Step<World>>> {
    broken.extend([blind("stage-fence", Does::Nothing), Arc::new(Credulous)]);
    broken
}

/// Why a run unwound: the step that refused and what it said.
fn refusal(outcome: &Outcome) -> (&str, &Failure) {
    match outcome {
        Outcome::Unwound { cause: Cause::Refused { step, failure } } => (step, failure),
        other => panic!("it was not refused: {other:?}"),
    }
}

async fn upgraded() -> Rig {
    let rig = Rig::new(15, 18, 500).await;
    assert_eq!(rig.up().await, Outcome::Done);
    rig
}

/// I1. Others than the proxy's clients write to blue; nothing but the fence stops them.
#[tokio::test(flavor = "multi_thread")]
async fn a_fence_that_does_not_refuse_is_caught() {
    let rig = upgraded().await;
    let (load, direct) = (rig.workload(100.0).await, rig.direct_workload(200.0).await);

    let (outcome, _) = rig.switch_with(SWITCH, vec![blind("fence", Does::Nothing)], Moments::new()).await;
    let (step, failure) = refusal(&outcome);
    assert_eq!((step, failure.code.as_deref()), ("carry-last", Some("lost-hold")), "{failure}");

    // Nobody looks but the repoint.
    let mut broken = vec![
        blind("fence", Does::Nothing),
        blind("carry-last", Does::Apply),
        blind("reach-marker", Does::Nothing),
        blind("reverse-ready", Does::Apply),
    ];
    let (outcome, _) = rig.switch_with(SWITCH, broken.clone(), Moments::new()).await;
    let (step, failure) = refusal(&outcome);
    assert_eq!((step, failure.code.as_deref()), ("repoint", Some("lost-hold")), "{failure}");
    assert!(failure.to_string().contains("fence is not raised"), "{failure}");
    let verdict = rig.judge(&load.stop().await, Side::Blue).await;
    assert!(verdict.is_flawless() && verdict.acknowledged > 20, "{verdict:#?}");

    // Nobody looks at all.
    broken[0] = blind("fence", Does::Nothing);
    broken[2] = blind("reach-marker", Does::Nothing);
    let (outcome, _) = rig.switch_with(SWITCH, and_credulous(broken), Moments::new()).await;
    assert_eq!(outcome, Outcome::Done);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let verdict = rig.judge(&direct.stop().await, Side::Green).await;
    assert!(verdict.lost > 0, "both sides took writes, and the oracle did not see it: {verdict:#?}");
}

/// I3. Green does not hear of blue's last commits in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_marker_that_was_skipped_is_caught() {
    let rig = upgraded().await;
    // Cut when the guardrails have seen a green in step, mended when it is too late to matter.
    let deaf = |until, point| {
        let (begin, end) = (rig.links.clone(), rig.links.clone());
        Moments::new().at("guardrails", CrashPoint::Succeeded, async move { begin.0.cut(Cut::Reset) }).at(
            until,
            point,
            async move { end.0.heal() },
        )
    };
    let load = rig.workload(300.0).await;
    for does in [Does::Nothing, Does::WriteMarker] {
        let broken = vec![blind("reach-marker", does), blind("reverse-ready", Does::Apply)];
        let moments = deaf("hold-clients", CrashPoint::Undone);
        let (outcome, _) = rig.switch_with(SWITCH, broken, moments).await;
        let (step, failure) = refusal(&outcome);
        assert_eq!((step, failure.code.as_deref()), ("repoint", Some("lost-hold")), "{failure}");
        assert!(failure.to_string().contains("marker"), "{failure}");
    }
    let verdict = rig.judge(&load.stop().await, Side::Blue).await;
    assert!(verdict.is_flawless() && verdict.acknowledged > 100, "{verdict:#?}");

    let load = rig.workload_from(300.0, 200).await;
    let broken =
        and_credulous(vec![blind("reach-marker", Does::Nothing), blind("reverse-ready", Does::Apply)]);
    let (outcome, _) = rig.switch_with(SWITCH, broken, deaf("drop-stream", CrashPoint::Succeeded)).await;
    assert_eq!(outcome, Outcome::Done);
    let verdict = rig.judge(&load.stop().await, Side::Green).await;
    assert!(verdict.lost > 0, "green lacks blue's last commits, and the oracle did not see it: {verdict:#?}");
}

/// I4. Without a slot from before the first write on green, that write never comes back to blue.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_reverse_slot_is_caught() {
    let rig = upgraded().await;
    let load = rig.workload(200.0).await;
    let shop = rig.databases.iter().find(|database| database.name == "shop").unwrap();
    let slot = stream_name(&rig.id, Stream::Reverse, shop);
    let on_green = |sql: String| {
        let green = rig.green.clone();
        async move { drop(green.sql_in("shop", &sql).await.unwrap()) }
    };
    let lost = || on_green(format!("SELECT pg_drop_replication_slot('{slot}')"));

    // It was never moved.
    let broken = vec![blind("reverse-ready", Does::Nothing)];
    let (outcome, _) = rig.switch_with(SWITCH, broken, Moments::new()).await;
    let (step, failure) = refusal(&outcome);
    assert_eq!((step, failure.code.as_deref()), ("repoint", Some("lost-hold")), "{failure}");
    assert!(failure.to_string().contains("slot of the way back"), "{failure}");

    // It is gone before, and after it was moved.
    for (moment, refuses) in [("carry-last", "reverse-ready"), ("reverse-ready", "repoint")] {
        let moments = Moments::new().at(moment, CrashPoint::Succeeded, lost());
        let (outcome, _) = rig.switch_through(SWITCH, moments).await;
        assert_eq!(refusal(&outcome).0, refuses, "the slot was lost after {moment}");
    }
    let verdict = rig.judge(&load.stop().await, Side::Blue).await;
    assert!(verdict.is_flawless() && verdict.acknowledged > 50, "{verdict:#?}");

    // Nobody looks, and a slot is made when clients have written for a while.
    let load = rig.workload_from(200.0, 200).await;
    let late = on_green(format!(
        "SELECT pg_sleep(0.5); SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"
    ));
    let moments = Moments::new().at("reverse-ready", CrashPoint::Succeeded, lost()).at(
        "open-way-back",
        CrashPoint::Started,
        late,
    );
    let broken = and_credulous(vec![blind("reverse-ready", Does::Apply)]);
    let (outcome, _) = rig.switch_with(SWITCH, broken, moments).await;
    assert_eq!(outcome, Outcome::Done);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let record = load.stop().await;
    let verdict = rig.judge(&record, Side::Green).await;
    assert!(verdict.is_flawless(), "{verdict:#?}");
    assert!(!rig.mismatched(Direction::BACK).await.is_empty(), "the comparison saw no difference");
    let (outcome, _) = rig.switchover(Direction::BACK).await;
    assert_eq!(outcome, Outcome::Done);
    let verdict = rig.judge(&record, Side::Blue).await;
    assert!(
        verdict.lost > 0,
        "blue lacks green's first commits, and the oracle did not see it: {verdict:#?}"
    );
}

/// I4. A slot that still stands where it was made sends blue its own rows again, and the way back is closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_reverse_slot_that_was_not_moved_is_caught() {
    let mut rig = upgraded().await;
    rig.settings.stall_bound = Duration::from_secs(2);
    let load = rig.workload(300.0).await;
    let broken = and_credulous(vec![blind("reverse-ready", Does::Nothing)]);
    let (outcome, _) = rig.switch_with(SWITCH, broken, Moments::new()).await;
    assert_eq!(outcome, Outcome::Done);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (outcome, _) = rig.switchover(Direction::BACK).await;
    let (step, failure) = refusal(&outcome);
    assert_eq!((step, failure.code.as_deref()), ("guardrails", Some("guardrail")), "{failure}");
    let verdict = rig.judge(&load.stop().await, Side::Green).await;
    assert!(verdict.is_flawless(), "{verdict:#?}");
    let compared = pgteal_core::compare::live(&rig.world(), Direction::BACK, &silent).await;
    assert!(compared.is_err_and(|error| error.to_string().contains("marker")), "nobody noticed");
}

/// I6. Somebody opens the gate or lowers the fence behind the controller's back, between any two steps.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_or_a_fence_lost_between_two_steps_unwinds_the_run() {
    let rig = upgraded().await;
    let load = rig.workload(200.0).await;
    // The epoch of the run that is about to begin.
    let next = async || rig.epoch().await.0 + 1;
    for step in ["hold-clients", "drain", "fence", "carry-last", "reach-marker", "reverse-ready"] {
        let (router, epoch) = (rig.router(), next().await);
        let open = async move { router.release(epoch).await.unwrap() };
        let moments = Moments::new().at(step, CrashPoint::Succeeded, open);
        let (outcome, _) = rig.switch_through(SWITCH, moments).await;
        let (_, failure) = refusal(&outcome);
        assert_eq!(failure.code.as_deref(), Some("lost-hold"), "released after {step}: {failure}");
    }
    for step in ["fence", "carry-last", "reach-marker", "reverse-ready"] {
        let (world, epoch) = (rig.world(), next().await);
        let lower = async move {
            let session = world.blue.server.warm("billing").await.unwrap();
            let fence = Fence::new(world.deployment.as_str(), "pgteal");
            fence.lower(&session, epoch.cast_signed()).await.unwrap();
        };
        let moments = Moments::new().at(step, CrashPoint::Succeeded, lower);
        let (outcome, _) = rig.switch_through(SWITCH, moments).await;
        let (_, failure) = refusal(&outcome);
        assert_eq!(failure.code.as_deref(), Some("lost-hold"), "lowered after {step}: {failure}");
    }
    assert_eq!(rig.route().await, (Side::Blue, false));
    let (outcome, _) = rig.switchover(SWITCH).await;
    assert_eq!(outcome, Outcome::Done);
    let verdict = rig.judge(&load.stop().await, Side::Green).await;
    // Whoever was let through to a fenced blue was refused there.
    assert!(verdict.is_sound() && verdict.connections_dropped == 0, "{verdict:#?}");
    assert!(verdict.errors.keys().all(|sqlstate| sqlstate == "25006"), "{verdict:#?}");
}

/// I7. The fuse stops a run whose slots keep too much, and nothing that keeps WAL is left.
#[tokio::test(flavor = "multi_thread")]
async fn the_wal_fuse_stops_a_run_and_leaves_no_slot() {
    let mut rig = Rig::new(15, 18, 500).await;
    rig.settings.wal_fuse_bytes = 1 << 20;
    let registry = pgteal_core::upgrade::runbook().unwrap();
    let plan = pgteal_core::upgrade::plan(&registry, &rig.id, &rig.databases).unwrap();
    let (links, blue) = (rig.links.clone(), rig.blue.clone());
    let mended = rig.links.clone();
    let moments = Moments::new()
        .at("build-indexes", CrashPoint::Succeeded, async move {
            links.0.freeze();
            let bulk = "CREATE TABLE IF NOT EXISTS bulk (t text);
                INSERT INTO bulk SELECT repeat('x', 1000) FROM generate_series(1, 4000)";
            blue.sql_in("shop", bulk).await.unwrap();
        })
        .at("subscribe", CrashPoint::UndoStarted, async move { mended.0.heal() });
    let (run, ended) = rig.drive_through(registry, plan, moments).await;
    rig.tell(&run).await;
    let outcome = ended.unwrap();
    let (step, failure) = refusal(&outcome);
    assert_eq!((step, failure.code.as_deref()), ("catch-up", Some("wal-fuse")), "{failure}");
    assert_eq!(rig.blue.sql("SELECT slot_name FROM pg_replication_slots").await.unwrap(), "");
    assert_eq!(rig.blue.sql_in("shop", "SELECT pubname FROM pg_publication").await.unwrap(), "");
}
