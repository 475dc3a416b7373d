//! The stored form of every past version can be read, and the newest is written as the golden file has it.

use crate::story;
use pgteal_saga::stored::{decode, encode};

const V1: &str = include_str!("golden/v1.jsonl");

/// One story with every event in it, legal or not.
fn everything() -> Vec<pgteal_saga::Event> {
    let words = "taken-over confirmed started:a succeeded:a failed:b!unknown failed:b!refused lost:a waiting:b opened:b \
                 deadline:b undo undoing:a undone:a undo-failed:a stuck:a!undo stuck:a stopped done unwound";
    story::story(&story::plan("e[etp]fg"), words)
}

#[test]
fn version_1_is_written_as_it_always_was() {
    let lines: Vec<_> = everything().iter().map(|event| encode(event).unwrap()).collect();
    let golden: Vec<_> = V1.lines().collect();
    assert_eq!(lines, golden, "the stored form changed: add a version, do not change an old one");
}

#[test]
fn version_1_can_be_read() {
    let events: Vec<_> = V1.lines().map(|line| decode(line).unwrap()).collect();
    assert_eq!(events, everything());
    match &events[0].body {
        pgteal_saga::EventBody::RunCreated { plan } => plan.check().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_a_stored_event_is_refused() {
    let good = V1.lines().nth(3).unwrap();
    let cases = [
        ("", "not a stored event"),
        ("{}", "it has no version"),
        ("[1]", "it has no version"),
        (&good.replace("\"v\":1", "\"v\":2"), "stored as version 2"),
        (&good.replace("started", "begun"), "not a stored event"),
        (&good.replace("\"seq\":4", "\"seq\":-4"), "not a stored event"),
        (&good.replace("\"seq\":4", "\"seq\":4,\"more\":1"), "not a stored event"),
        (&good[..good.len() - 1], "not a stored event"),
    ];
    for (line, wanted) in cases {
        let error = decode(line).unwrap_err().to_string();
        assert!(error.contains(wanted), "{line}: {error}");
    }
}
