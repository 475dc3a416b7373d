//! What the demo answers: the claims, each with what was measured, and the one object of `--json`.

use pgteal_saga::Event;
use serde::Serialize;

use crate::render::timeline::{laps, millis};

/// The timeline of one cutover. All figures in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cutover {
    /// The longest that any client waited for one transaction while clients were moved.
    pub pause_ms: f64,
    /// Holding the clients.
    pub hold_ms: f64,
    /// Waiting for their open transactions.
    pub drain_ms: f64,
    /// Raising the fence, until no transaction from before is left.
    pub fence_ms: f64,
    /// Until the other side has applied the marker.
    pub marker_ms: f64,
    /// Carrying what replication leaves behind: sequences above all.
    pub sequences_ms: f64,
    /// Repointing: from the last look to the new route.
    pub repoint_ms: f64,
    /// Letting the clients go on.
    pub release_ms: f64,
}

impl Cutover {
    /// Read from the events of a switchover; `stall_us` is what the clients saw.
    #[must_use]
    pub fn read(events: &[Event], stall_us: u64) -> Self {
        let laps = laps(events, None);
        let of = |step: &str| {
            let micros: i64 =
                laps.iter().filter(|lap| lap.step == step && lap.ok).filter_map(|lap| lap.micros()).sum();
            millis(micros)
        };
        Self {
            pause_ms: millis(i64::try_from(stall_us).unwrap_or(i64::MAX)),
            hold_ms: of("hold-clients"),
            drain_ms: of("drain"),
            fence_ms: of("fence"),
            marker_ms: of("reach-marker"),
            sequences_ms: of("carry-last"),
            repoint_ms: of("repoint"),
            release_ms: of("release"),
        }
    }
}

/// The one object of `--json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Major version of blue.
    pub from: u32,
    /// Major version of green.
    pub to: u32,
    /// Errors that clients saw, unknown outcomes included.
    pub client_errors: u64,
    /// Commits that were acknowledged to clients.
    pub acknowledged: u64,
    /// Acknowledged commits that are missing or incomplete on the active side.
    pub lost: u64,
    /// Commits that are there more than once.
    pub duplicated: u64,
    /// Client connections that broke.
    pub connections_dropped: u64,
    /// Client sessions.
    pub sessions: u64,
    /// Tables that differ between blue and green, in all comparisons together.
    pub mismatched_tables: u64,
    /// The switchover to green.
    pub switch: Cutover,
    /// The switchover back to blue.
    pub back: Cutover,
}

/// A sentence about the run that is either true or false.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// The sentence.
    pub text: String,
    /// Whether it was found to hold.
    pub holds: bool,
    /// What was found.
    pub found: String,
}

impl Claim {
    /// A claim and what was found.
    #[must_use]
    pub fn new(text: impl Into<String>, holds: bool, found: impl Into<String>) -> Self {
        Self { text: text.into(), holds, found: found.into() }
    }
}
