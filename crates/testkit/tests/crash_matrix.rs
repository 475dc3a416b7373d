//! The controller killed at each of the crash points of every step, then resumed: the world in the end is the same as
//! after an undisturbed run, and before the point of no return `undo` leaves both clusters exactly as they were found.
//! The binaries are the product's own; clients write through the proxy all the while.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod rig_cli;

use pgteal_core::deployment::Direction;
use pgteal_core::world::World;
use pgteal_core::{retire, switchover, upgrade};
use pgteal_saga::{CrashPoint, Registry, StepKind};
use rig_cli::{End, Rig};

/// Exit codes of the command.
const DONE: End = End::Code(0);
const UNWOUND: End = End::Code(4);

/// The crash points of a runbook on the way forward, in order. A step that only looks has no `applied`: the run comes
/// through there, which a run that cannot be begun twice may not.
fn points(registry: &Registry<World>, may_pass_by: bool) -> Vec<(String, CrashPoint)> {
    let of = |step: &std::sync::Arc<dyn pgteal_saga::Step<World>>| {
        let all = CrashPoint::FORWARD.into_iter();
        let only_looks = step.kind() == StepKind::Transient && !may_pass_by;
        let some = all.filter(move |point| !(only_looks && *point == CrashPoint::Applied));
        some.map(|point| (step.id().to_owned(), point)).collect::<Vec<_>>()
    };
    registry.steps().iter().flat_map(of).collect()
}

/// Kills the run that `begin` starts at every point. A run that came to its end, because the step was seen to be done
/// before anything was applied, is taken back by `reset` and begun anew; without a `reset` that is the end of it. At
/// the end the run has come through.
async fn kill_everywhere(rig: &Rig, begin: &[&str], registry: &Registry<World>, reset: Option<&str>) {
    kill_at(rig, begin, points(registry, reset.is_some()), reset).await;
}

async fn kill_at(rig: &Rig, begin: &[&str], points: Vec<(String, CrashPoint)>, reset: Option<&str>) {
    let (mut open, mut through) = (false, false);
    for (step, point) in points {
        let at = format!("{}/{step}/{point}", begin[0]);
        if through {
            let Some(reset) = reset else { return };
            rig.must(&[reset]).await;
            through = false;
        }
        let mut command: &[&str] = if open { &["resume"] } else { begin };
        // A crash inside the cutover unwinds on resume: then the point is looked for in a run of its own.
        for _ in 0..2 {
            let (end, output) = rig.crash(command, &at).await;
            eprintln!("{at} ({}): {end:?}", command[0]);
            open = end == End::Crashed;
            through = end == DONE;
            match end {
                UNWOUND => command = begin,
                End::Crashed | DONE => break,
                End::Code(_) => panic!("{at}: {end:?}\n{}{}", output.stdout, output.stderr),
            }
        }
        assert!(open || through, "{at} was never reached");
    }
    if open {
        rig.must(&["resume"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere_the_world_in_the_end_is_the_same() {
    // Undisturbed.
    let calm = Rig::new(15, 18, 200).await;
    calm.must(&["up"]).await;
    let after_up = (calm.portrait(&calm.blue).await, calm.portrait(&calm.green).await);
    calm.must(&["switch"]).await;
    let after_switch = (calm.portrait(&calm.blue).await, calm.portrait(&calm.green).await);
    calm.must(&["back"]).await;
    let after_back = (calm.portrait(&calm.blue).await, calm.portrait(&calm.green).await);
    calm.must(&["switch"]).await;
    calm.must(&["finish", "--yes"]).await;
    let after_finish = (calm.portrait(&calm.blue).await, calm.portrait(&calm.green).await);
    for cluster in [&calm.blue, &calm.green] {
        assert_eq!(calm.watchers(cluster).await, "look:A look_at_ddl:O", "{} after finish", cluster.name());
    }
    drop(calm);

    // Killed at every point.
    let rig = Rig::new(15, 18, 200).await;
    let load = rig.workload(40.0).await;
    kill_everywhere(&rig, &["up"], &upgrade::runbook().unwrap(), Some("undo")).await;
    assert_same("up", &after_up, &(rig.portrait(&rig.blue).await, rig.portrait(&rig.green).await));
    let registry = switchover::runbook(Direction::SWITCH).unwrap();
    kill_everywhere(&rig, &["switch"], &registry, Some("back")).await;
    assert_same("switch", &after_switch, &(rig.portrait(&rig.blue).await, rig.portrait(&rig.green).await));
    // The same steps with the sides swapped: where the sides matter most.
    let registry = switchover::runbook(Direction::BACK).unwrap();
    let mut some = points(&registry, true);
    some.retain(|(step, _)| {
        ["make-way-back", "repoint", "drop-stream", "open-way-back"].contains(&step.as_str())
    });
    kill_at(&rig, &["back"], some, Some("switch")).await;
    assert_same("back", &after_back, &(rig.portrait(&rig.blue).await, rig.portrait(&rig.green).await));
    rig.must(&["switch"]).await;
    let record = load.stop().await;
    let verdict = rig.judge(&record, &rig.green).await;
    assert!(verdict.is_sound() && verdict.client_errors() == 0, "{verdict:#?}");
    let registry = retire::runbook(pgteal_core::deployment::Side::Green).unwrap();
    kill_everywhere(&rig, &["finish", "--yes"], &registry, None).await;
    assert_same("finish", &after_finish, &(rig.portrait(&rig.blue).await, rig.portrait(&rig.green).await));
}

fn assert_same(what: &str, expected: &(String, String), found: &(String, String)) {
    for (side, a, b) in [("blue", &expected.0, &found.0), ("green", &expected.1, &found.1)] {
        let (a, b): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
        let missing: Vec<_> = a.iter().filter(|line| !b.contains(line)).collect();
        let extra: Vec<_> = b.iter().filter(|line| !a.contains(line)).collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{side} after {what}: missing {missing:#?}, extra {extra:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn undone_from_anywhere_both_clusters_are_as_they_were_found() {
    let rig = Rig::new(15, 18, 200).await;
    let before = (rig.portrait(&rig.blue).await, rig.portrait(&rig.green).await);
    let registry = upgrade::runbook().unwrap();
    // From the middle of each step.
    for step in registry.steps() {
        let at = format!("up/{}/started", step.id());
        let (end, output) = rig.crash(&["up"], &at).await;
        assert_eq!(end, End::Crashed, "{at}\n{}{}", output.stdout, output.stderr);
        let (end, output) = rig.crash(&["undo"], "none/none/undone").await;
        assert!(matches!(end, DONE | UNWOUND), "undo from {at}: {end:?}\n{}{}", output.stdout, output.stderr);
        assert_same(
            &format!("undo from {at}"),
            &before,
            &(rig.portrait(&rig.blue).await, rig.portrait(&rig.green).await),
        );
    }
    // And killed at every point of the way back.
    rig.must(&["up"]).await;
    let mut command = "undo";
    for step in registry.steps().iter().rev() {
        for point in CrashPoint::BACKWARD {
            let at = format!("up/{}/{point}", step.id());
            let (end, output) = rig.crash(&[command], &at).await;
            assert_eq!(end, End::Crashed, "{at}\n{}{}", output.stdout, output.stderr);
            command = "resume";
        }
    }
    let (end, output) = rig.crash(&["resume"], "none/none/undone").await;
    assert!(matches!(end, DONE | UNWOUND), "{end:?}\n{}{}", output.stdout, output.stderr);
    assert_same("undo", &before, &(rig.portrait(&rig.blue).await, rig.portrait(&rig.green).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_undone_before_the_point_of_no_return_leaves_both_clusters_as_they_were() {
    let rig = Rig::new(15, 18, 200).await;
    rig.must(&["up"]).await;
    let before = (rig.portrait(&rig.blue).await, rig.portrait(&rig.green).await);
    let load = rig.workload(40.0).await;
    let registry = switchover::runbook(Direction::SWITCH).unwrap();
    let reversible = registry.steps().iter().take_while(|step| !step.kind().is_forward());
    for (n, step) in reversible.enumerate() {
        // In the middle of every other step, at the end of those between.
        let point = if n % 2 == 0 { CrashPoint::Started } else { CrashPoint::Succeeded };
        let at = format!("switch/{}/{point}", step.id());
        let (end, output) = rig.crash(&["switch"], &at).await;
        assert_eq!(end, End::Crashed, "{at}\n{}{}", output.stdout, output.stderr);
        rig.must(&["undo"]).await;
        let after = (rig.portrait(&rig.blue).await, rig.portrait(&rig.green).await);
        assert_same(&format!("undo from {at}"), &before, &after);
    }
    let verdict = rig.judge(&load.stop().await, &rig.blue).await;
    assert!(verdict.is_flawless(), "{verdict:#?}");
}
