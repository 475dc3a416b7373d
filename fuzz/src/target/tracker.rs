//! The tracker, told any messages in any order: what it says of itself agrees, and it keeps no more than it was told. That it is
//! right where servers keep to the protocol is shown elsewhere, against a model and against servers
//! (`crates/wire/tests/tracker_model.rs`, `crates/proxy/tests/tracker_truth.rs`).

use pgteal_wire::tracker::{Fate, Reply, Tracker};

const CLIENT: &[u8] = b"QPBDECSHFdcfX";
const SERVER: &[u8] = b"Z123CDEGHWINnsTtVSAd";

pub fn run(bytes: &[u8]) {
    let mut tracker = Tracker::new();
    let mut told = 0;
    for pair in bytes.chunks_exact(2) {
        let (what, how) = (pair[0], pair[1]);
        let tag = |among: &[u8]| among.get(usize::from(what >> 1)).copied().unwrap_or(what);
        if what & 1 == 0 {
            let tag = tag(CLIENT);
            let before = tracker.clone();
            let fate = tracker.client(tag);
            told += 1;
            // What may pass a closing gate begins nothing.
            if before.at_boundary() && before.may_pass(tag) {
                assert!(tracker.at_boundary() || fate == Fate::Taken, "{before:?} then {}", char::from(tag));
            }
        } else {
            let tag = tag(SERVER);
            let status = [b"I", b"T", b"E"].get(usize::from(how % 4)).copied();
            let body: &[u8] = if tag == b'Z' { status.map_or(b"", |status| &status[..]) } else { b"x\0" };
            let before = tracker.outstanding();
            let reply = tracker.server(tag, body);
            assert!(tracker.outstanding() <= before, "an answer asks nothing");
            if let Reply::Skipped { parses, closes } = reply {
                assert!(parses + closes <= told);
            }
        }
        assert!(tracker.outstanding() <= told);
        if tracker.at_boundary() && !tracker.lost() {
            assert!(!tracker.in_transaction() && !tracker.unsynced() && !tracker.copying(), "{tracker:?}");
        }
    }
}
