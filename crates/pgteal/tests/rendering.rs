//! What a run looks like on paper: lines as it goes, and its timeline afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pgteal::demo::report::Cutover;
use pgteal::render::{Live, Titles, timeline};
use pgteal::ui::{Captured, Ui};
use pgteal_saga::event::{Doing, End, Event, EventBody};
use pgteal_saga::fault::{Class, Failure};
use pgteal_saga::{Epoch, Feed, Observer, Progress, RunId};

fn run() -> RunId {
    RunId::parse("switch-k3f7a2qx").unwrap()
}

fn titles() -> Titles {
    [("hold-clients", "hold clients"), ("fence", "fence the old side"), ("repoint", "repoint")]
        .map(|(id, title)| (id.to_owned(), title.to_owned()))
        .into()
}

/// Events at these microseconds.
fn events(bodies: Vec<(i64, EventBody)>) -> Vec<Event> {
    let numbered = (1..).zip(bodies);
    numbered
        .map(|(seq, (us, body))| Event {
            seq,
            epoch: Epoch(3),
            at: jiff::Timestamp::from_microsecond(1_800_000_000_000_000 + us).unwrap(),
            mono_ns: u64::try_from(us).unwrap() * 1000,
            body,
        })
        .collect()
}

fn started(step: &str) -> EventBody {
    EventBody::Started { step: step.into() }
}

fn succeeded(step: &str) -> EventBody {
    EventBody::Succeeded { step: step.into(), facts: serde_json::Map::new() }
}

fn failed(step: &str, attempt: u32) -> EventBody {
    let failure = Failure::new("server blue", "no answer");
    EventBody::Failed { step: step.into(), class: Class::Unknown, failure, attempt }
}

/// A switchover whose fence fails twice, is stuck, is resumed, and is taken back.
fn troubled() -> Vec<Event> {
    let step = |id: &str| id.to_owned();
    events(vec![
        (0, started("hold-clients")),
        (1_200, succeeded("hold-clients")),
        (1_300, started("fence")),
        (6_000, failed("fence", 1)),
        (11_000, failed("fence", 2)),
        (
            11_100,
            EventBody::Stuck {
                step: step("fence"),
                doing: Doing::Apply,
                failure: Failure::new("server blue", "no answer"),
            },
        ),
        (900_000, EventBody::Resumed { holder: "pgteal 7 on db3".into() }),
        (900_100, EventBody::UndoRequested { by: "pgteal 7 on db3".into() }),
        (900_200, EventBody::UndoStarted { step: step("fence") }),
        (904_200, EventBody::Undone { step: step("fence") }),
        (904_300, EventBody::UndoStarted { step: step("hold-clients") }),
        (905_000, EventBody::Undone { step: step("hold-clients") }),
        (905_100, EventBody::Finished { end: End::Unwound }),
    ])
}

fn cutover() -> Vec<Event> {
    let mut bodies = vec![(0, started("guardrails")), (900, succeeded("guardrails"))];
    let mut at = 1_000;
    for (step, took) in [
        ("hold-clients", 1_500),
        ("drain", 250),
        ("fence", 16_000),
        ("reach-marker", 8_000),
        ("carry-last", 500),
        ("reverse-ready", 9_000),
        ("repoint", 14_000),
        ("release", 750),
    ] {
        bodies.push((at, started(step)));
        bodies.push((at + took, succeeded(step)));
        at += took + 100;
    }
    events(bodies)
}

/// Shows the stream to its end.
async fn shown(ui: Ui, out: Captured, events: &[Event], progress: &[Progress]) -> String {
    let feed = Feed::new(64);
    let live = Live::start(&ui, &feed, titles());
    for event in events {
        feed.event(&run(), event);
    }
    for progress in progress {
        feed.progress(progress);
    }
    live.close().await;
    let bytes = out.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_troubled_run_in_lines() {
    let (ui, out, _) = Ui::in_memory(false);
    insta::assert_snapshot!(shown(ui, out, &troubled(), &[]).await);
}

#[tokio::test]
async fn the_same_as_json_lines() {
    let (ui, out, _) = Ui::in_memory(true);
    let progress = Progress {
        run: run().to_string(),
        step: "initial-sync".into(),
        item: Some("app.public.orders".into()),
        message: "copying".into(),
        done: Some(1 << 20),
        total: Some(4 << 20),
        unit: "bytes",
    };
    let text = shown(ui, out, &troubled()[..4], &[progress]).await;
    for line in text.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).unwrap().is_object());
    }
    insta::assert_snapshot!(text);
}

#[test]
fn the_timeline_of_a_cutover() {
    let laps = timeline::laps(&cutover(), Some(("hold-clients", "release")));
    insta::assert_snapshot!(format!(
        "{}\n\n{:#}",
        timeline::draw(&laps, &titles()),
        timeline::value(&laps[..2])
    ));
}

#[test]
fn the_timeline_of_a_troubled_run() {
    insta::assert_snapshot!(timeline::draw(&timeline::laps(&troubled(), None), &titles()));
    assert!(timeline::laps(&troubled(), Some(("no-such", "release"))).is_empty());
    assert_eq!(timeline::draw(&[], &titles()), "");
}

#[test]
fn the_figures_of_a_cutover_are_those_of_its_steps() {
    let read = Cutover::read(&cutover(), 61_500);
    let expected = Cutover {
        pause_ms: 61.5,
        hold_ms: 1.5,
        drain_ms: 0.25,
        fence_ms: 16.0,
        marker_ms: 8.0,
        sequences_ms: 0.5,
        repoint_ms: 14.0,
        release_ms: 0.75,
    };
    assert_eq!(read, expected);
}
