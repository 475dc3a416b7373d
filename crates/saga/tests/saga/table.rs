//! The transition table and the decisions, as data: a plan, a story, where it ends, what comes next.

use crate::story;
use jiff::SignedDuration;
use pgteal_saga::decide::{Now, decide};
use pgteal_saga::state::fold;

/// What is decided `after_ms` after the last event.
fn next(kinds: &str, words: &str, after_ms: i64, stop: bool) -> String {
    let plan = story::plan(kinds);
    match fold(&story::story(&plan, words)) {
        Err(error) => format!("illegal: {error}"),
        Ok(state) => {
            let at = state.last_at() + SignedDuration::from_millis(after_ms);
            format!("{} -> {:?}", state.describe(), decide(&plan, &state, Now { at, stop }))
        }
    }
}

fn check(cases: &[(&str, &str, i64, bool, &str)]) {
    for (kinds, words, after_ms, stop, wanted) in cases {
        let found = next(kinds, words, *after_ms, *stop);
        assert!(
            found.contains(wanted),
            "{kinds} {words:?} +{after_ms} ms\n found  {found}\n wanted {wanted}"
        );
    }
}

#[test]
fn the_way_forward() {
    check(&[
        ("ee", "", 0, false, "going forward at a -> Begin { step: 0, not_before: None }"),
        ("ee", "started:a", 0, false, "-> Continue { step: 0, not_before: None }"),
        ("ee", "started:a succeeded:a", 0, false, "at b -> Begin { step: 1"),
        ("ee", "started:a succeeded:a started:b succeeded:b", 0, false, "-> Finish(Done)"),
        ("ee", "started:a succeeded:a started:b succeeded:b done", 0, false, "done -> Over(Done)"),
        ("ee", "started:a taken-over", 0, false, "-> Continue { step: 0"),
        ("ee", "", 0, true, "-> Stop"),
        ("ee", "started:a", 0, true, "-> Stop"),
        ("ee", "started:a succeeded:a started:b succeeded:b", 0, true, "-> Finish(Done)"),
        ("ee", "started:a stopped", 0, false, "stopped at a, going forward -> Rest(Stopped)"),
        ("ee", "started:a stopped resumed", 0, false, "-> Continue { step: 0"),
    ]);
}

#[test]
fn failures_are_tried_again_within_bounds() {
    check(&[
        (
            "ee",
            "started:a failed:a",
            0,
            false,
            "Continue { step: 0, not_before: Some(2026-12-03T10:00:00.103Z) }",
        ),
        ("ee", "started:a failed:a failed:a", 0, false, "Some(2026-12-03T10:00:00.154Z) }"),
        ("ee", "started:a failed:a failed:a failed:a", 0, false, "Stick { step: 0, doing: Apply"),
        ("ee", "started:a failed:a", 10_001, false, "Stick { step: 0, doing: Apply"),
        ("ee", "failed:a", 0, false, "Begin { step: 0, not_before: Some("),
        ("ee", "failed:a failed:a failed:a", 0, false, "Stick { step: 0"),
        (
            "ee",
            "started:a failed:a failed:a failed:a stuck:a",
            0,
            false,
            "stuck at a, going forward -> Rest(Stuck",
        ),
        (
            "ee",
            "started:a failed:a failed:a failed:a stuck:a resumed",
            0,
            false,
            "Continue { step: 0, not_before: None",
        ),
        ("ee", "started:a failed:a", 0, true, "-> Stop"),
        ("pf", "started:a failed:a!refused", 0, false, "Stick { step: 0, doing: Apply"),
        ("pf", "started:a succeeded:a failed:b!refused", 0, false, "Stick { step: 1, doing: Apply"),
    ]);
}

#[test]
fn the_way_back() {
    check(&[
        ("ee", "started:a failed:a!refused", 0, false, "unwinding at a -> BeginUndo { step: 0 }"),
        ("ee", "failed:a!refused", 0, false, "unwinding -> Finish(Unwound)"),
        ("ee", "started:a succeeded:a started:b failed:b!refused", 0, false, "BeginUndo { step: 1 }"),
        ("ee", "started:a succeeded:a failed:b!refused", 0, false, "BeginUndo { step: 0 }"),
        ("ee", "started:a undo undoing:a", 0, false, "ContinueUndo { step: 0, not_before: None }"),
        (
            "ee",
            "started:a undo undoing:a undo-failed:a",
            0,
            false,
            "ContinueUndo { step: 0, not_before: Some(",
        ),
        ("ee", "started:a undo undoing:a undo-failed:a undo-failed:a undo-failed:a", 0, false, "doing: Undo"),
        (
            "ee",
            "started:a undo undoing:a undo-failed:a stuck:a!undo",
            0,
            false,
            "stuck at a, unwinding -> Rest",
        ),
        ("ee", "started:a undo undoing:a undone:a", 0, false, "-> Finish(Unwound)"),
        ("ee", "started:a undo undoing:a undone:a unwound", 0, false, "unwound -> Over(Unwound)"),
        ("ee", "started:a undo", 0, true, "-> Stop"),
        (
            "e",
            "started:a succeeded:a done taken-over undo",
            0,
            false,
            "unwinding at a -> BeginUndo { step: 0 }",
        ),
    ]);
}

#[test]
fn a_section_has_a_deadline_until_the_point_of_no_return() {
    check(&[
        ("e[ep]f", "started:a succeeded:a", 5_000, false, "Begin { step: 1"),
        ("e[ep]f", "started:a succeeded:a started:b", 999, false, "Continue { step: 1"),
        ("e[ep]f", "started:a succeeded:a started:b", 1_000, false, "Expire { step: 1, elapsed_ms: 1000 }"),
        (
            "e[ep]f",
            "started:a succeeded:a started:b succeeded:b",
            1_000,
            false,
            "Expire { step: 2, elapsed_ms: 1001 }",
        ),
        // A clock that was set back.
        ("e[ep]f", "started:a succeeded:a started:b", -1, false, "Expire { step: 1, elapsed_ms: 0 }"),
        (
            "e[ep]f",
            "started:a succeeded:a started:b succeeded:b started:c",
            9_000,
            false,
            "Continue { step: 2",
        ),
        (
            "e[ep]f",
            "started:a succeeded:a started:b deadline:b",
            0,
            false,
            "unwinding at b -> BeginUndo { step: 1 }",
        ),
        // Inside, an unknown never rests: the deadline decides.
        (
            "e[ep]f",
            "started:a succeeded:a started:b failed:b failed:b failed:b failed:b",
            0,
            false,
            "Continue { step: 1",
        ),
        (
            "[epf]",
            "started:a succeeded:a started:b failed:b failed:b",
            0,
            false,
            "Stick { step: 1, doing: Apply",
        ),
        // Without a point of no return it lasts to its end.
        ("[ee]e", "started:a succeeded:a started:b", 2_000, false, "Expire { step: 1"),
        ("[ee]e", "started:a succeeded:a started:b succeeded:b", 2_000, false, "Begin { step: 2"),
    ]);
}

#[test]
fn a_stop_never_leaves_clients_held() {
    check(&[
        ("e[ep]f", "started:a succeeded:a", 0, true, "-> Stop"),
        ("e[epf]f", "started:a succeeded:a started:b", 0, true, "-> UnwindForStop"),
        ("e[epf]f", "started:a succeeded:a started:b undo:stop", 0, true, "BeginUndo { step: 1 }"),
        (
            "e[epf]f",
            "started:a succeeded:a started:b undo:stop undoing:b undone:b",
            0,
            true,
            "BeginUndo { step: 0 }",
        ),
        ("e[epf]f", "started:a succeeded:a started:b undo undoing:b undone:b", 0, true, "-> Stop"),
        ("[epf]f", "started:a succeeded:a started:b", 0, true, "Continue { step: 1"),
        ("[epf]f", "started:a succeeded:a started:b succeeded:b", 0, true, "Begin { step: 2"),
        ("[epf]f", "started:a succeeded:a started:b succeeded:b started:c succeeded:c", 0, true, "-> Stop"),
    ]);
}

#[test]
fn a_resumed_section_is_looked_at_again() {
    check(&[
        ("[eep]", "started:a succeeded:a started:b taken-over", 0, false, "-> Confirm"),
        ("[eep]", "started:a succeeded:a started:b taken-over confirmed", 0, false, "Continue { step: 1"),
        (
            "[eep]",
            "started:a succeeded:a taken-over lost:a",
            0,
            false,
            "unwinding at b -> BeginUndo { step: 1 }",
        ),
        (
            "[eep]",
            "started:a succeeded:a taken-over lost:a undoing:b undone:b",
            0,
            false,
            "BeginUndo { step: 0 }",
        ),
        (
            "[eep]",
            "started:a succeeded:a started:b succeeded:b started:c taken-over",
            0,
            false,
            "Continue { step: 2",
        ),
        // Without a resume, a step that never began has nothing to undo.
        ("[eep]", "started:a succeeded:a undo", 0, false, "unwinding at a"),
        ("e[eep]", "started:a taken-over", 0, false, "Continue { step: 0"),
    ]);
}

#[test]
fn gates_wait_for_people() {
    check(&[
        ("ge", "started:a waiting:a", 0, false, "waiting at a -> Rest(Waiting"),
        ("ge", "started:a waiting:a resumed", 0, false, "Continue { step: 0"),
        ("ge", "started:a waiting:a resumed opened:a", 0, false, "PassGate { step: 0 }"),
        ("ge", "started:a waiting:a resumed opened:a succeeded:a", 0, false, "Begin { step: 1"),
    ]);
}

#[test]
fn what_cannot_follow_is_illegal() {
    let stories = [
        ("ee", "started:b"),
        ("ee", "succeeded:a"),
        ("ee", "started:a started:a"),
        ("ee", "started:a started:b"),
        ("ee", "started:a succeeded:a succeeded:a"),
        ("ee", "started:z"),
        ("ee", "done"),
        ("ee", "unwound"),
        ("ee", "confirmed"),
        ("ee", "undoing:a"),
        ("ee", "stuck:a"),
        ("ee", "started:a failed:a failed:b"),
        ("ee", "started:a failed:a stuck:a!undo"),
        ("ee", "started:a waiting:a"),
        ("ee", "started:a deadline:a"),
        ("ee", "started:a succeeded:a lost:a"),
        ("ee", "started:a undo undo"),
        ("ee", "started:a undo started:b"),
        ("ee", "started:a undo undone:a"),
        ("ee", "started:a succeeded:a started:b undo undoing:a"),
        ("ee", "started:a undo undoing:a unwound"),
        ("ee", "started:a stopped succeeded:a"),
        ("ee", "started:a stopped undo"),
        ("e", "started:a succeeded:a done started:a"),
        ("e", "started:a undo undoing:a undone:a unwound resumed"),
        ("pf", "started:a undo"),
        ("p", "started:a succeeded:a done resumed undo"),
        ("[ep]", "started:a succeeded:a started:b deadline:b"),
        ("[ep]", "started:a succeeded:a started:b lost:a"),
        ("ge", "started:a opened:b"),
    ];
    for (kinds, words) in stories {
        let found = next(kinds, words, 0, false);
        assert!(found.starts_with("illegal:"), "{kinds} {words:?}: {found}");
    }
}

#[test]
fn numbers_and_epochs_only_rise() {
    let plan = story::plan("ee");
    let good = story::story(&plan, "started:a taken-over");
    fold(&good).unwrap();
    assert!(fold(&[]).unwrap_err().to_string().contains("no events"));
    assert!(fold(&good[1..]).unwrap_err().to_string().contains("event 2 cannot follow event 0"));
    let gap = [good[0].clone(), good[2].clone()];
    assert!(fold(&gap).unwrap_err().to_string().contains("event 3 cannot follow event 1"));
    let mut risen = good.clone();
    risen[1].epoch = pgteal_saga::Epoch(2);
    assert!(fold(&risen).unwrap_err().to_string().contains("cannot carry epoch 2"));
    let mut fallen = good;
    fallen[2].epoch = pgteal_saga::Epoch(0);
    assert!(fold(&fallen).unwrap_err().to_string().contains("cannot carry epoch 0"));
}
