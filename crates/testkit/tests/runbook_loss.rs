//! A side that stays dead: what keeps WAL goes from the other one at once, everything else when the operator gives the
//! dead one up, and nobody claims to have seen it clean. And what does not count as dead: a refusal that passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;
mod rig_cli;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use pgteal_core::deployment::{Direction, Side};
use pgteal_core::world::World;
use pgteal_core::{switchover, upgrade};
use pgteal_saga::driver::Outcome;
use pgteal_saga::state::Cause;
use pgteal_saga::{CrashPoint, Cx, Durability, Observation, Step, StepError, StepKind};
use pgteal_testkit::{Cluster, wait_until};
use rig::moments::later;
use rig::{Moments, Rig};
use rig_cli::End;

const SLOTS: &str = "SELECT coalesce(string_agg(slot_name, ' '), '') FROM pg_replication_slots";

async fn without_slots(cluster: &Cluster) {
    wait_until("every slot to be gone", Duration::from_secs(30), async || {
        let left = cluster.sql(SLOTS).await.unwrap();
        if left.is_empty() { Ok(Some(())) } else { Err(left) }
    })
    .await
    .unwrap();
}

/// Nobody gives a side up that is there by mistake: what it would keep is told, and nothing is done.
async fn still_answers(rig: &rig_cli::Rig, command: &[&str]) -> String {
    let (refused, side) = (rig.run(command).await, command[2]);
    let said = format!("{command:?}: {}{}", refused.stdout, refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(refused.stderr.contains(&format!("{side} answers at 127.0.0.1:")), "{said}");
    assert!(refused.stderr.contains("it would keep what pgteal made there"), "{said}");
    assert!(refused.stderr.contains(&format!("pgteal {} --yes\n", command.join(" "))), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_answers_is_given_up_by_who_says_yes_alone() {
    let rig = rig_cli::Rig::new(15, 18, 100).await;
    rig.must(&["up"]).await;
    still_answers(&rig, &["undo", "--lost", "green"]).await;
    assert_ne!(rig.blue.sql(SLOTS).await.unwrap(), "", "it was undone");
    rig.must(&["switch"]).await;
    let blue = rig.portrait(&rig.blue).await;
    still_answers(&rig, &["finish", "--lost", "blue"]).await;
    rig.must(&["finish", "--lost", "blue", "--yes"]).await;
    assert_eq!(rig.portrait(&rig.blue).await, blue, "what was given up is not touched");
    assert_eq!(rig.green.sql(SLOTS).await.unwrap(), "");
}

/// Green dies for good. Undoing takes the slots from blue although green does not answer, rests there, and takes
/// everything else when green is given up.
#[tokio::test(flavor = "multi_thread")]
async fn with_green_dead_for_good_blue_becomes_what_it_was() {
    let rig = rig_cli::Rig::new(15, 18, 200).await;
    let before = rig.portrait(&rig.blue).await;
    rig.must(&["up"]).await;
    // A switch that was tried and unwound is the newest run, and not the one that is taken back below.
    rig.blue.sql_in("shop", "CREATE TABLE late (a int)").await.unwrap();
    let refused = rig.run(&["switch"]).await;
    assert_ne!(refused.status.code(), Some(0), "{}", refused.stdout);
    let runs = rig.must(&["runs"]).await;
    assert!(runs.stdout.contains("switch") && runs.stdout.contains("unwound"), "{}", runs.stdout);
    rig.blue.sql_in("shop", "DROP TABLE late").await.unwrap();
    still_answers(&rig, &["undo", "--lost", "green"]).await;
    rig.green.kill9().unwrap();

    let mut undo = rig.start(&["undo"]);
    without_slots(&rig.blue).await;
    undo.interrupt().unwrap();
    let rests = undo.wait(Duration::from_secs(30)).await.unwrap();
    assert_eq!(rests.code(), Some(6), "{}{}", undo.stdout(), undo.stderr());
    assert_ne!(rig.portrait(&rig.blue).await, before, "the rest waits for green, or for the operator");

    let status = rig.must(&["status"]).await;
    assert!(status.stdout.contains("what was built is being taken back"), "{}", status.stdout);

    let refused = rig.run(&["undo", "--lost", "blue"]).await;
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    let done = rig.must(&["undo", "--lost", "green"]).await;
    assert!(done.stdout.contains("green was given up and not looked at"), "{}", done.stdout);
    assert_eq!(rig.portrait(&rig.blue).await, before);
    assert_eq!(rig.watchers(&rig.blue).await, "look:A look_at_ddl:O");

    // Another journal knows nothing of what green still has, and says what it sees on the servers.
    rig.green.start().await.unwrap();
    let on_green = "SELECT pg_create_logical_replication_slot('pgteal_abcd2345_rev_0', 'pgoutput')";
    rig.green.sql(on_green).await.unwrap();
    std::fs::remove_dir_all(rig.dir.path().join(".pgteal")).unwrap();
    let status = rig.must(&["status"]).await;
    let advice = "on green: SELECT pg_drop_replication_slot('pgteal_abcd2345_rev_0')";
    assert!(status.stdout.contains(advice), "{}", status.stdout);
}

/// Blue dies for good at the point of no return, or in the middle of the switch's last steps: the run comes to its end
/// without it, and `finish` leaves nothing on green.
#[tokio::test(flavor = "multi_thread")]
async fn with_blue_dead_for_good_green_is_left_clean() {
    for moment in ["switch/repoint/started", "switch/release/succeeded"] {
        green_is_left_clean(moment).await;
    }
}

async fn green_is_left_clean(moment: &str) {
    let rig = rig_cli::Rig::new(15, 18, 200).await;
    let found = "SELECT string_agg(c.relname || c.relreplident::text, ' ' ORDER BY c.relname) FROM pg_class c JOIN pg_namespace n
        ON n.oid = c.relnamespace WHERE n.nspname = 'shop' AND c.relkind IN ('r', 'p')";
    let identities = rig.blue.sql_in("shop", found).await.unwrap();
    rig.must(&["up"]).await;
    assert_ne!(rig.green.sql_in("shop", found).await.unwrap(), identities, "the test shows nothing");
    let (end, output) = rig.crash(&["switch"], moment).await;
    assert_eq!(end, End::Crashed, "{}{}", output.stdout, output.stderr);
    let said = still_answers(&rig, &["resume", "--lost", "blue"]).await;
    assert!(said.contains("3 of those slots keep WAL until the disk is full"), "{said}");
    rig.blue.kill9().unwrap();

    rig.must(&["resume", "--lost", "blue"]).await;
    let done = rig.must(&["finish", "--yes", "--lost", "blue"]).await;
    assert!(done.stdout.contains("blue was given up and not looked at"), "{}", done.stdout);
    assert_eq!(rig.green.sql(SLOTS).await.unwrap(), "");
    assert_eq!(rig.green.sql_in("shop", found).await.unwrap(), identities);
    assert_eq!(rig.watchers(&rig.green).await, "look:A look_at_ddl:O");
    for line in rig.portrait(&rig.green).await.lines().filter(|line| line.contains("pgteal")) {
        assert!(
            line.starts_with("role pgteal") || line.starts_with("setting - pgteal"),
            "left on green: {line}"
        );
    }
    let dumps = std::fs::read_dir(rig.dir.path().join(".pgteal")).unwrap();
    let dumps: Vec<_> = dumps.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!dumps.iter().any(|name| name.to_string_lossy().starts_with("schema-")), "{dumps:?}");
}

/// I7. The fuse looks at the slots of table copies too, and blows while green does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn the_fuse_sees_every_slot_and_blows_without_green() {
    let mut rig = Rig::new(15, 18, 500).await;
    rig.settings.wal_fuse_bytes = 8 << 20;
    let fused = |outcome: &Outcome, at: &[&str]| match outcome {
        Outcome::Unwound { cause: Cause::Refused { step, failure } } => {
            assert!(at.contains(&step.as_str()), "{step}");
            assert_eq!(failure.code.as_deref(), Some("wal-fuse"), "{failure}");
        }
        other => panic!("it was not stopped by the fuse: {other:?}"),
    };
    let bulk = "SELECT pg_logical_emit_message(false, 'bulk', repeat('x', 1000000)) FROM generate_series(1, 16); CHECKPOINT";

    // The slot of a table's copy stands still, those of the streams are younger than the bulk.
    let system = "SELECT system_identifier FROM pg_control_system()";
    let copy = format!("pg_1_sync_1_{}", rig.green.sql(system).await.unwrap().trim());
    let made = format!("SELECT pg_create_logical_replication_slot('{copy}', 'pgoutput')");
    let blue = rig.blue.clone();
    let moments = Moments::new().at("publish", CrashPoint::Started, async move {
        blue.sql_in("shop", &made).await.unwrap();
        blue.sql(bulk).await.unwrap();
    });
    let registry = upgrade::runbook().unwrap();
    let plan = upgrade::plan(&registry, &rig.id, &rig.databases).unwrap();
    let (_, ended) = rig.drive_through(registry, plan, moments).await;
    fused(&ended.unwrap(), &["initial-sync"]);
    assert_eq!(rig.blue.sql(SLOTS).await.unwrap(), "", "it kept WAL, so it must go too");

    // Green is away from the end of the copy on, until blue has no slot any more.
    let seen = Arc::new(Mutex::new(None));
    let (blue, green) = (rig.blue.clone(), rig.green.clone());
    let back = (rig.blue.clone(), rig.green.clone(), seen.clone());
    let moments = Moments::new()
        .at("build-indexes", CrashPoint::Succeeded, async move {
            green.kill9().unwrap();
            blue.sql(bulk).await.unwrap();
        })
        .at("subscribe", CrashPoint::UndoStarted, async move {
            later(Duration::from_secs(3), move || {
                let handle = tokio::runtime::Handle::current();
                *back.2.lock().unwrap() = Some(handle.block_on(back.0.sql(SLOTS)).unwrap());
                handle.block_on(back.1.start()).unwrap();
            });
        });
    let registry = upgrade::runbook().unwrap();
    let plan = upgrade::plan(&registry, &rig.id, &rig.databases).unwrap();
    let (run, ended) = rig.drive_through(registry, plan, moments).await;
    rig.tell(&run).await;
    fused(&ended.unwrap(), &["analyze", "catch-up"]);
    assert_eq!(seen.lock().unwrap().as_deref(), Some(""), "with green away blue kept slots");
}

/// A step that refuses a few times and is itself then.
struct Reluctant(Arc<dyn Step<World>>, AtomicU32);

#[async_trait]
impl Step<World> for Reluctant {
    fn id(&self) -> &'static str {
        self.0.id()
    }

    fn title(&self) -> &'static str {
        self.0.title()
    }

    fn kind(&self) -> StepKind {
        self.0.kind()
    }

    fn durability(&self) -> Durability {
        self.0.durability()
    }

    async fn guard(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        self.0.guard(world, cx).await
    }

    async fn observe(&self, world: &World, cx: &Cx) -> Result<Observation, StepError> {
        self.0.observe(world, cx).await
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        if self.1.fetch_add(1, Ordering::SeqCst) < 3 {
            return Err(StepError::refused("green", "tuple concurrently updated"));
        }
        self.0.apply(world, cx).await
    }
}

/// Past the point of no return a refusal is no reason to leave clients before a fenced side. And a blue without database
/// `postgres`: green has it, was claimed there, and is clean in the end all the same.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_behind_the_point_of_no_return_are_got_over_and_nothing_is_left() {
    let rig = Rig::without_postgres(17, 18, 200).await;
    assert_eq!(rig.up().await, Outcome::Done);
    let load = rig.workload(100.0).await;
    let whole = switchover::runbook(Direction::SWITCH).unwrap();
    let reluctant = |id: &str| -> Arc<dyn Step<World>> {
        Arc::new(Reluctant(whole.get(id).unwrap().clone(), AtomicU32::new(0)))
    };
    let steps = vec![reluctant("repoint"), reluctant("release")];
    let (outcome, _) = rig.switch_with(Direction::SWITCH, steps, Moments::new()).await;
    assert_eq!(outcome, Outcome::Done);
    let verdict = rig.judge(&load.stop().await, Side::Green).await;
    assert!(verdict.is_flawless() && verdict.acknowledged > 10, "{verdict:#?}");
    assert_eq!(rig.finish(Side::Green).await, Outcome::Done);
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname = 'pgteal'";
    for database in ["postgres", "shop", "billing"] {
        assert_eq!(rig.green.sql_in(database, left).await.unwrap().trim(), "0", "green, {database}");
    }
}
