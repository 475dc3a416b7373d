//! The main job, once through: up, switch, back, finish, under load, in every pair of versions that matters.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;

use pgteal_core::deployment::{Direction, Side};
use pgteal_saga::driver::Outcome;
use rig::Rig;

async fn whole(from: u16, to: u16) {
    let rig = Rig::new(from, to, 2000).await;
    let load = rig.workload(200.0).await;
    assert_eq!(rig.up().await, Outcome::Done, "up {from} to {to}");
    let (outcome, _) = rig.switchover(Direction::SWITCH).await;
    assert_eq!(outcome, Outcome::Done, "switch {from} to {to}");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let (outcome, _) = rig.switchover(Direction::BACK).await;
    assert_eq!(outcome, Outcome::Done, "back {to} to {from}");
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let record = load.stop().await;
    let verdict = rig.judge(&record, Side::Blue).await;
    assert!(verdict.is_flawless(), "{from} to {to}: {verdict:#?}");
    assert!(verdict.acknowledged > 300, "{verdict:#?}");
    assert_eq!(rig.mismatched(Direction::SWITCH).await, Vec::<String>::new());
    assert_eq!(rig.finish(Side::Blue).await, Outcome::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn from_15_to_18_and_back() {
    whole(15, 18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_14_to_18_and_back() {
    whole(14, 18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_17_to_18_and_back() {
    whole(17, 18).await;
}
