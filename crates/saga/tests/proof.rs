//! The proof kit on fake worlds: whole registries pass, and each flaw in a step is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pgteal_saga::proof::fake::{FakeBench, Flaw};
use pgteal_saga::proof::{Report, prove};

/// The cases whose fault never came about. A step of few waits cannot be cut short after many.
fn untouched(report: &Report) -> Vec<&String> {
    report.untouched.iter().filter(|case| !case.contains(": cut ")).collect()
}

#[tokio::test(start_paused = true)]
async fn the_fake_up_run_passes_every_case() {
    let report = prove(&FakeBench::up()).await.unwrap();
    report.check().unwrap();
    assert_eq!(untouched(&report), Vec::<&String>::new());
    assert!(report.cases > 100, "{}", report.cases);
}

#[tokio::test(start_paused = true)]
async fn the_fake_switch_run_passes_every_case() {
    let report = prove(&FakeBench::switch()).await.unwrap();
    report.check().unwrap();
    assert_eq!(untouched(&report), Vec::<&String>::new());
    assert!(report.cases > 200, "{}", report.cases);
}

#[tokio::test(start_paused = true)]
async fn a_flaw_in_a_step_is_found() {
    let flaws = [
        ("up", "schema", Flaw::ApplyOnce),
        ("up", "schema", Flaw::UndoForgets),
        ("up", "schema", Flaw::UndoOnce),
        ("up", "subscribe", Flaw::ObserveGlances),
        ("up", "subscribe", Flaw::UndoGreedy),
        ("switch", "fence", Flaw::ObserveGlances),
        ("switch", "repoint", Flaw::ObserveGlances),
        ("switch", "hold", Flaw::UndoGreedy),
        ("switch", "fence", Flaw::ApplyOnce),
        ("switch", "fence", Flaw::UndoForgets),
        ("switch", "fence", Flaw::UndoOnce),
        ("switch", "repoint", Flaw::ApplyOnce),
    ];
    for (kind, step, flaw) in flaws {
        let bench = if kind == "up" { FakeBench::up() } else { FakeBench::switch() };
        let report = prove(&bench.with_flaw(step, flaw)).await.unwrap();
        assert!(!report.failures.is_empty(), "{flaw:?} in {kind}/{step} was not found");
    }
}
