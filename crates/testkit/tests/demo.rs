//! `pgteal demo` as a newcomer runs it, only smaller: every claim holds, and `--json` says what its help promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use pgteal_testkit::{Program, Scratch, binary};
use serde_json::Value;

const TOP: [&str; 11] = [
    "acknowledged",
    "back",
    "client_errors",
    "connections_dropped",
    "duplicated",
    "from",
    "lost",
    "mismatched_tables",
    "sessions",
    "switch",
    "to",
];
const CUTOVER: [&str; 8] =
    ["drain_ms", "fence_ms", "hold_ms", "marker_ms", "pause_ms", "release_ms", "repoint_ms", "sequences_ms"];

fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn every_claim_of_the_demo_holds_and_its_object_is_as_documented() {
    // Beside `pgteal`, where it looks for it.
    binary("pgteal-proxy").unwrap();
    let dir = Arc::new(Scratch::new().unwrap());
    let pgteal = |args: &[&str]| Program::product("pgteal").unwrap().args(args).dir(&dir);
    let small = ["demo", "--json", "--seconds", "1", "--rows", "500", "--clients", "8", "--rate", "100"];
    let told = pgteal(&small).env("TMPDIR", dir.path()).run(Duration::from_secs(120)).await.unwrap();
    assert!(told.status.success(), "{:?}\n{}{}", told.status, told.stdout, told.stderr);
    let report: Value = serde_json::from_str(&told.stdout).expect("one object and nothing else");
    assert_eq!(keys(&report), TOP);
    for cutover in ["switch", "back"] {
        assert_eq!(keys(&report[cutover]), CUTOVER);
        for key in CUTOVER {
            assert!(
                report[cutover][key].as_f64().unwrap() > 0.0,
                "{cutover}.{key} was not measured: {report}"
            );
        }
    }
    assert_eq!((&report["from"], &report["to"], &report["sessions"]), (&15.into(), &18.into(), &8.into()));
    for key in ["client_errors", "lost", "duplicated", "connections_dropped", "mismatched_tables"] {
        assert_eq!(report[key], 0, "{key}");
    }
    assert!(report["acknowledged"].as_u64().unwrap() > 100, "{report}");
    let help = pgteal(&["demo", "--help"]).run(Duration::from_secs(10)).await.unwrap().stdout;
    let undocumented: Vec<_> = TOP.iter().chain(&CUTOVER).filter(|key| !help.contains(*key)).collect();
    assert!(undocumented.is_empty(), "the help does not name {undocumented:?}");
    let left = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("pgteal-demo")).collect();
    assert!(left.is_empty(), "{left:?} stayed behind");
}
