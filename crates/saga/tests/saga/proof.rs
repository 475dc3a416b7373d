//! The proof kit on fake worlds: whole registries pass, and each flaw in a step is found.

use pgteal_saga::proof::fake::{FakeBench, FakeWorld, Flaw};
use pgteal_saga::proof::{Bench, Report, cases, prove, prove_case, reference};

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
        assert!(is_found(&bench.with_flaw(step, flaw)).await, "{flaw:?} in {kind}/{step} was not found");
    }
}

/// Whether any case goes wrong; stops at the first.
async fn is_found(bench: &FakeBench) -> bool {
    let reference = reference(bench).await.unwrap();
    let plan = bench.plan(&FakeWorld::new()).await.unwrap();
    for case in cases(&plan) {
        if prove_case(bench, &case, &reference).await.is_err() {
            return true;
        }
    }
    false
}
