//! Servers, links and the proxy fail at the worst moments of a run, under load. Whatever happens, no acknowledged commit
//! is lost, and the deployment can be switched afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod rig;

use std::time::Duration;

use pgteal_core::deployment::{Direction, Side};
use pgteal_core::upgrade;
use pgteal_ledger::Workload;
use pgteal_saga::driver::Outcome;
use pgteal_saga::state::Cause;
use pgteal_saga::{CrashPoint, Event};
use pgteal_testkit::{Cluster, Cut};
use rig::moments::{kill_and_restart, later, started};
use rig::{Moments, Rig};

const SWITCH: Direction = Direction::SWITCH;

async fn upgraded() -> Rig {
    let rig = Rig::new(15, 18, 500).await;
    assert_eq!(rig.up().await, Outcome::Done);
    rig
}

fn is_unwound(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unwound { .. })
}

fn is_past_the_deadline(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unwound { cause: Cause::Deadline { .. } })
}

/// A run that was disturbed is over, the proxy holds nobody and points to the side it left clients on; then clients are
/// brought to blue.
async fn settled(rig: &Rig, outcome: &Outcome, what: &str) {
    let active = match outcome {
        Outcome::Done => Side::Green,
        Outcome::Unwound { .. } => Side::Blue,
        other => panic!("{what}: the run ended {other:?}"),
    };
    assert_eq!(rig.route().await, (active, false), "{what}");
    if active == Side::Green {
        let (outcome, _) = rig.switchover(Direction::BACK).await;
        assert_eq!(outcome, Outcome::Done, "{what}, then back");
    }
}

/// A switchover that nothing disturbs works, and the clients' whole story is true on green.
async fn works_afterwards(rig: &Rig, load: Workload, flawless: bool) {
    // Sessions that lost their connection come back.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (outcome, _) = rig.switchover(SWITCH).await;
    assert_eq!(outcome, Outcome::Done);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let verdict = rig.judge(&load.stop().await, Side::Green).await;
    assert!(verdict.is_sound() && verdict.acknowledged > 100, "{verdict:#?}");
    assert!(!flawless || verdict.is_flawless(), "{verdict:#?}");
    assert_eq!(rig.mismatched(Direction::BACK).await, Vec::<String>::new());
}

/// One cutover for each moment, at which a cluster is killed; it is started again a little later.
async fn dies_at(which: Side, moments: &[(&'static str, CrashPoint)]) {
    let rig = upgraded().await;
    let load = rig.workload(200.0).await;
    for (step, point) in moments {
        let what = format!("{which} killed at {step}/{point}");
        let cluster = if which == Side::Blue { &rig.blue } else { &rig.green };
        let moments = Moments::new().at(step, *point, kill_and_restart(cluster, Duration::from_millis(300)));
        let (outcome, _) = rig.switch_through(SWITCH, moments).await;
        eprintln!("{what}: {outcome:?}");
        settled(&rig, &outcome, &what).await;
        let warm = wait_for_writes(&load).await;
        assert!(warm, "{what}: clients do not get through again");
    }
    works_afterwards(&rig, load, false).await;
}

/// Whether transactions are acknowledged again, within five seconds.
async fn wait_for_writes(load: &Workload) -> bool {
    let before = load.counters().acked;
    for _ in 0..500 {
        if load.counters().acked > before + 20 {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn blue_is_killed_before_during_and_after_the_fence() {
    dies_at(
        Side::Blue,
        &[
            ("drain", CrashPoint::Succeeded),
            ("fence", CrashPoint::Started),
            ("fence", CrashPoint::Applied),
            ("reach-marker", CrashPoint::Succeeded),
            ("repoint", CrashPoint::Started),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn green_is_killed_during_the_cutover() {
    dies_at(
        Side::Green,
        &[
            ("hold-clients", CrashPoint::Succeeded),
            ("fence", CrashPoint::Succeeded),
            ("reach-marker", CrashPoint::Succeeded),
            ("repoint", CrashPoint::Applied),
            ("release", CrashPoint::Applied),
        ],
    )
    .await;
}

/// The commit that lowers green's fence is on the disk before anybody goes on, though no client commits anything since:
/// who logs in under a fence that came back stays read-only.
#[tokio::test(flavor = "multi_thread")]
async fn a_green_that_crashes_when_clients_were_released_comes_back_without_a_fence() {
    for (step, point) in [("repoint", CrashPoint::Applied), ("release", CrashPoint::Succeeded)] {
        let green = Cluster::builder(18).set("wal_writer_delay", "10s");
        let rig = Rig::of(Cluster::builder(15), green, 500).await;
        assert_eq!(rig.up().await, Outcome::Done);
        let crash = kill_and_restart(&rig.green, Duration::ZERO);
        let moments = Moments::new().at(step, point, crash);
        let (outcome, _) = rig.switch_through(SWITCH, moments).await;
        assert_eq!(outcome, Outcome::Done, "crash after {step}");
        for database in &rig.databases {
            let write = "CREATE TABLE later (a int); INSERT INTO later VALUES (1)";
            rig.green.sql_in(&database.name, write).await.unwrap_or_else(|e| panic!("{step}: {e}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn green_is_killed_during_the_initial_sync_and_the_link_is_cut_while_it_catches_up() {
    let rig = Rig::new(15, 18, 20_000).await;
    let load = rig.workload(200.0).await;
    let registry = upgrade::runbook().unwrap();
    let plan = upgrade::plan(&registry, &rig.id, &rig.databases).unwrap();
    let (links, mended) = (rig.links.clone(), rig.links.clone());
    let moments = Moments::new()
        .at("subscribe", CrashPoint::Succeeded, kill_and_restart(&rig.green, Duration::from_millis(300)))
        .at("catch-up", CrashPoint::Started, async move {
            links.0.cut(Cut::Reset);
            later(Duration::from_millis(1500), move || mended.0.heal());
        });
    let (run, ended) = rig.drive_through(registry, plan, moments).await;
    if ended != Ok(Outcome::Done) {
        rig.tell(&run).await;
    }
    assert_eq!(ended, Ok(Outcome::Done));
    works_afterwards(&rig, load, true).await;
}

/// I7. Table copies that were under way have slots of their own on blue, which green cannot drop any more.
#[tokio::test(flavor = "multi_thread")]
async fn an_undo_with_the_link_down_leaves_no_slot() {
    let rig = Rig::new(15, 18, 20_000).await;
    let registry = upgrade::runbook().unwrap();
    let plan = upgrade::plan(&registry, &rig.id, &rig.databases).unwrap();
    let (slow, cut, blue) = (rig.links.clone(), rig.links.clone(), rig.blue.clone());
    let copying = "SELECT count(*) > 0 FROM pg_replication_slots WHERE slot_name LIKE 'pg\\_%\\_sync\\_%'";
    let moments = Moments::new()
        .at("publish", CrashPoint::Succeeded, async move { slow.0.rate(Some(100_000)) })
        .at("subscribe", CrashPoint::Succeeded, async move {
            for _ in 0..500 {
                if blue.sql(copying).await.unwrap() == "t" {
                    return cut.0.cut(Cut::Reset);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("no table is being copied");
        })
        .die_at("initial-sync", CrashPoint::Started);
    let (run, _) = rig.drive_through(registry, plan, moments).await;
    // The subscription is gone, and its copies' slots are still there: it takes more than dropping it.
    let blue = rig.blue.clone();
    let left = async move { assert_eq!(blue.sql(copying).await.unwrap(), "t") };
    let moments = Moments::new().at("publish", CrashPoint::UndoStarted, left);
    let outcome = rig.undo(upgrade::runbook().unwrap(), &run, moments).await;
    assert!(is_unwound(&outcome), "{outcome:?}");
    assert_eq!(rig.blue.sql("SELECT slot_name FROM pg_replication_slots").await.unwrap(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_is_cut_or_stands_still_during_the_cutover() {
    let rig = upgraded().await;
    let load = rig.workload(200.0).await;
    // Too short for the deadline: the worker is back in time, or the run unwinds.
    let (links, mended) = (rig.links.clone(), rig.links.clone());
    let blip = Moments::new().at("fence", CrashPoint::Succeeded, async move {
        links.0.cut(Cut::Reset);
        later(Duration::from_millis(700), move || mended.0.heal());
    });
    let (outcome, _) = rig.switch_through(SWITCH, blip).await;
    settled(&rig, &outcome, "a link cut for 700 ms").await;
    // Until the deadline: clients wait no longer than that, and go on where they were.
    let (links, mended) = (rig.links.clone(), rig.links.clone());
    let still = Moments::new().at("drain", CrashPoint::Succeeded, async move { links.0.freeze() }).at(
        "hold-clients",
        CrashPoint::Undone,
        async move { mended.0.heal() },
    );
    let (outcome, _) = rig.switch_through(SWITCH, still).await;
    assert!(is_past_the_deadline(&outcome), "{outcome:?}");
    works_afterwards(&rig, load, true).await;
}

async fn apply_worker(green: &Cluster) -> i32 {
    let sql = "SELECT pid FROM pg_stat_subscription WHERE relid IS NULL AND subname IN (SELECT subname FROM
        pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = 'shop'))";
    green.sql(sql).await.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apply_worker_that_stands_still_costs_clients_the_deadline_and_nothing_else() {
    let mut rig = upgraded().await;
    rig.settings.deadline = Duration::from_secs(1);
    let load = rig.workload(200.0).await;
    // Stopped before: the guardrails see it, nobody is held.
    let worker = apply_worker(&rig.green).await;
    rig.green.freeze_backend(worker).unwrap();
    let (outcome, events) = rig.switch_through(SWITCH, Moments::new()).await;
    assert!(is_unwound(&outcome), "{outcome:?}");
    assert!(!started(&events).iter().any(|step| step == "hold-clients"), "{events:?}");
    rig.green.thaw_backend(worker).unwrap();
    // Stopped when the guardrails have looked: the deadline ends it.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (green, worker) = (rig.green.clone(), apply_worker(&rig.green).await);
    let stop = async move { green.freeze_backend(worker).unwrap() };
    let since = load.mark();
    let moments = Moments::new().at("await-calm", CrashPoint::Succeeded, stop);
    let (outcome, _) = rig.switch_through(SWITCH, moments).await;
    assert!(is_past_the_deadline(&outcome), "{outcome:?}");
    let until = load.now_us();
    rig.green.thaw_backend(worker).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (outcome, _) = rig.switchover(SWITCH).await;
    assert_eq!(outcome, Outcome::Done);
    let record = load.stop().await;
    let stall_ms = record.window(since, until).longest_stall_us / 1000;
    assert!((900..2000).contains(&stall_ms), "clients waited {stall_ms} ms");
    let verdict = rig.judge(&record, Side::Green).await;
    assert!(verdict.is_flawless() && verdict.acknowledged > 100, "{verdict:#?}");
}

/// The proxy is gone at a moment of the cutover, and another one is started in its place.
async fn proxy_dies(rig: &mut Rig, step: &'static str, point: CrashPoint) -> (Outcome, Vec<Event>) {
    let (act, second) = rig.replace_proxy(Duration::from_millis(300));
    let ended = rig.switch_through(SWITCH, Moments::new().at(step, point, act)).await;
    rig.proxy = second.take();
    eprintln!("proxy killed at {step}/{point}: {:?}", ended.0);
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_is_killed_while_it_holds() {
    let mut rig = upgraded().await;
    let load = rig.workload(200.0).await;
    for (step, point, ends) in [
        ("drain", CrashPoint::Succeeded, Side::Blue),
        ("reverse-ready", CrashPoint::Succeeded, Side::Blue),
        // Behind the point of no return there is one way: the new proxy finds the old route and is sent on.
        ("repoint", CrashPoint::Started, Side::Green),
        // The route that it finds is the new one.
        ("repoint", CrashPoint::Succeeded, Side::Green),
    ] {
        let (outcome, _) = proxy_dies(&mut rig, step, point).await;
        let what = format!("the proxy killed at {step}/{point}");
        assert_eq!(rig.route().await, (ends, false), "{what}");
        settled(&rig, &outcome, &what).await;
        assert!(wait_for_writes(&load).await, "{what}: clients do not get through again");
    }
    works_afterwards(&rig, load, false).await;
}
