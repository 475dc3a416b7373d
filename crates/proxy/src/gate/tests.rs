#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::gate::{Course, Effect, Event, Gate, GateError, Phase};
use crate::route::Side;

fn hold(epoch: u64, limit_ms: u64) -> Event {
    Event::Hold { epoch, run: "r".into(), limit: Duration::from_millis(limit_ms) }
}

fn drive(gate: &Gate, event: &Event) -> Result<Effect, GateError> {
    gate.drive(event, Instant::now(), |_, _| Ok(()))
}

#[test]
fn the_table() {
    use {Effect as E, Side::*};
    let repoint = |epoch, side| Event::Repoint { epoch, side };
    let release = |epoch| Event::Release { epoch };
    let not_held = |epoch, state: &str| Err(GateError::NotHeld { epoch, state: state.into() });
    // each row: the events before, the event, what it must do
    let rows: Vec<(Vec<Event>, Event, Result<Effect, GateError>)> = vec![
        (vec![], hold(1, 9), Ok(E::Closed)),
        (vec![hold(1, 9)], hold(1, 9), Ok(E::Extended)),
        (vec![hold(1, 9)], hold(2, 9), Ok(E::Extended)),
        (vec![hold(2, 9)], hold(1, 9), Err(GateError::Stale { given: 1, highest: 2 })),
        (vec![], repoint(1, Green), not_held(1, "flowing")),
        (vec![], repoint(1, Blue), Ok(E::Same)),
        (vec![hold(1, 9)], repoint(1, Green), Ok(E::Repointed)),
        (vec![hold(1, 9)], repoint(2, Green), not_held(2, "held by epoch 1")),
        (vec![hold(1, 9)], repoint(2, Blue), not_held(2, "held by epoch 1")),
        (vec![hold(1, 9), repoint(1, Green)], repoint(1, Green), Ok(E::Same)),
        (vec![hold(1, 9), repoint(1, Green)], repoint(1, Blue), Ok(E::Repointed)),
        (vec![hold(1, 9)], release(1), Ok(E::Opened)),
        (vec![hold(1, 9)], release(2), Ok(E::Opened)),
        (vec![hold(2, 9)], release(1), Err(GateError::Stale { given: 1, highest: 2 })),
        (vec![], release(1), Ok(E::Same)),
        (vec![hold(1, 0)], Event::Expire, Ok(E::Opened)),
        (vec![hold(1, 60_000)], Event::Expire, Ok(E::Same)),
        (vec![], Event::Expire, Ok(E::Same)),
        (vec![hold(1, 60_000)], Event::Shutdown, Ok(E::Opened)),
    ];
    for (before, event, expected) in rows {
        let gate = Gate::new(Blue, 0);
        for event in &before {
            drive(&gate, event).unwrap();
        }
        let was_closed = gate.is_closed();
        let got = drive(&gate, &event);
        assert_eq!(got, expected, "{before:?} then {event:?}");
        if got.is_err() {
            assert_eq!(gate.is_closed(), was_closed, "a refusal changes nothing");
        }
    }
}

#[test]
fn a_repoint_is_refused_while_somebody_is_inside_or_it_cannot_be_recorded() {
    let gate = Gate::new(Side::Blue, 0);
    assert_eq!(gate.enter().unwrap().side, Side::Blue);
    drive(&gate, &hold(1, 9)).unwrap();
    assert_eq!(gate.busy(), 1);
    assert!(gate.enter().is_none());
    let repoint = Event::Repoint { epoch: 1, side: Side::Green };
    assert_eq!(drive(&gate, &repoint), Err(GateError::Busy { busy: 1 }));
    gate.leave();
    let refused = gate.drive(&repoint, Instant::now(), |_, _| Err("disk full".into()));
    assert_eq!(refused, Err(GateError::NotRecorded("disk full".into())));
    assert_eq!(gate.course(), Course { side: Side::Blue, turn: 0 });
    drive(&gate, &repoint).unwrap();
    assert_eq!(gate.course(), Course { side: Side::Green, turn: 1 });
    assert!(gate.enter().is_none(), "still closed");
    drive(&gate, &Event::Release { epoch: 1 }).unwrap();
    assert_eq!(gate.enter().unwrap(), Course { side: Side::Green, turn: 1 });
}

#[tokio::test]
async fn a_hold_ends_by_its_own_limit() {
    let gate = Arc::new(Gate::new(Side::Blue, 0));
    let keeper = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move { gate.keep_limits().await }
    });
    drive(&gate, &hold(1, 250)).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    drive(&gate, &hold(1, 250)).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(gate.is_closed(), "the second HOLD extended it");
    let opened = gate.opened();
    tokio::time::timeout(Duration::from_secs(5), opened).await.expect("opened by the limit");
    assert_eq!(gate.view().last_release, "limit");
    assert_eq!(gate.view().phase, Phase::Flowing);
    keeper.abort();
}

/// Sessions hammer the gate from several threads while a driver closes, drains, repoints and opens it thousands of
/// times. After "closed and nobody inside" nobody may be inside, and whoever is inside is on the side he was told.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_slips_through() {
    const SESSIONS: usize = 24;
    const ROUNDS: u64 = 4_000;
    let gate = Arc::new(Gate::new(Side::Blue, 0));
    let inside = Arc::new(AtomicU64::new(0));
    let visits = Arc::new(AtomicU64::new(0));
    let truth = Arc::new(AtomicBool::new(false));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for _ in 0..SESSIONS {
        let (gate, inside, visits, truth, stop) = (
            Arc::clone(&gate),
            Arc::clone(&inside),
            Arc::clone(&visits),
            Arc::clone(&truth),
            Arc::clone(&stop),
        );
        tasks.push(tokio::spawn(async move {
            let mut transactions = 0u64;
            while !stop.load(Ordering::SeqCst) {
                let opened = gate.opened();
                tokio::pin!(opened);
                opened.as_mut().enable();
                let Some(course) = gate.enter() else {
                    let _waiting = gate.wait_here();
                    tokio::time::timeout(Duration::from_secs(10), opened).await.expect("a wake-up was lost");
                    continue;
                };
                inside.fetch_add(1, Ordering::SeqCst);
                visits.fetch_add(1, Ordering::SeqCst);
                assert_eq!(course.side == Side::Green, truth.load(Ordering::SeqCst), "wrong side");
                if transactions.is_multiple_of(7) {
                    tokio::task::yield_now().await;
                }
                inside.fetch_sub(1, Ordering::SeqCst);
                gate.leave();
                transactions += 1;
                if transactions.is_multiple_of(64) {
                    tokio::task::yield_now().await;
                }
            }
        }));
    }
    let mut seen = 0;
    for round in 1..=ROUNDS {
        // A busy machine may let the driver run alone for long: every now and then it waits for somebody to get in.
        if round % 16 == 1 {
            let somebody = async {
                while visits.load(Ordering::SeqCst) == seen {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), somebody)
                .await
                .expect("nobody enters an open gate");
            seen = visits.load(Ordering::SeqCst);
        }
        drive(&gate, &hold(round, 60_000)).unwrap();
        let left = gate.drained(Instant::now() + Duration::from_secs(10)).await;
        assert_eq!(left, 0, "round {round}");
        assert_eq!(inside.load(Ordering::SeqCst), 0, "round {round}");
        let side = gate.course().side.other();
        truth.store(side == Side::Green, Ordering::SeqCst);
        assert_eq!(drive(&gate, &Event::Repoint { epoch: round, side }), Ok(Effect::Repointed));
        assert_eq!(inside.load(Ordering::SeqCst), 0, "round {round}");
        drive(&gate, &Event::Release { epoch: round }).unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(20), task).await.expect("stuck").unwrap();
    }
    assert_eq!(gate.busy(), 0);
    assert_eq!(gate.view().waiting, 0);
}

#[test]
fn a_side_is_at_risk_from_a_hold_until_somebody_releases() {
    let gate = Gate::new(Side::Blue, 0);
    let now = Instant::now();
    let drive = |event: Event, at: Instant| gate.drive(&event, at, |_, _| Ok(())).unwrap();
    assert!(!gate.is_at_risk());
    drive(Event::Hold { epoch: 1, run: String::new(), limit: Duration::from_secs(1) }, now);
    assert!(gate.is_at_risk());
    assert_eq!(drive(Event::Expire, now + Duration::from_secs(2)), Effect::Opened);
    assert!(gate.is_at_risk(), "nobody has said that it is over");
    assert_eq!(drive(Event::Release { epoch: 1 }, now), Effect::Same);
    assert!(!gate.is_at_risk());
    gate.met_fence();
    assert!(gate.is_at_risk());
    drive(Event::Hold { epoch: 1, run: String::new(), limit: Duration::from_secs(1) }, now);
    drive(Event::Repoint { epoch: 1, side: Side::Green }, now);
    assert!(gate.is_at_risk(), "the other side's fence is the driver's to lower");
    drive(Event::Release { epoch: 1 }, now);
    assert!(!gate.is_at_risk());
    gate.inherit(true);
    assert!(gate.is_at_risk(), "the process before took it for fenced");
}
