//! The main job in the pairs of versions that `runbook_whole` leaves out: a target before 18, and Debian's own build.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;

use pgteal_core::deployment::{Direction, Side};
use pgteal_saga::driver::Outcome;
use pgteal_testkit::{Cluster, ClusterBuilder};
use rig::Rig;

async fn there_and_back(from: ClusterBuilder, to: ClusterBuilder) {
    let rig = Rig::of(from, to, 500).await;
    let load = rig.workload(150.0).await;
    assert_eq!(rig.up().await, Outcome::Done);
    for direction in [Direction::SWITCH, Direction::BACK] {
        let (outcome, _) = rig.switchover(direction).await;
        assert_eq!(outcome, Outcome::Done, "{direction:?}");
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    let verdict = rig.judge(&load.stop().await, Side::Blue).await;
    assert!(verdict.is_flawless() && verdict.acknowledged > 100, "{verdict:#?}");
    assert_eq!(rig.mismatched(Direction::SWITCH).await, Vec::<String>::new());
    assert_eq!(rig.finish(Side::Blue).await, Outcome::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn from_16_to_18_and_back() {
    there_and_back(Cluster::builder(16), Cluster::builder(18)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_15_to_17_and_back() {
    there_and_back(Cluster::builder(15), Cluster::builder(17)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_14_to_15_and_back() {
    there_and_back(Cluster::builder(14), Cluster::builder(15)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_debians_15_to_18_and_back() {
    there_and_back(Cluster::builder(15).debian(), Cluster::builder(18)).await;
}
