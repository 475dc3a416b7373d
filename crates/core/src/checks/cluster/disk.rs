//! `disk`: green needs about as much room as blue's databases take.

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Finding, Look, Place, Severity, Spot};
use crate::deployment::Side;

const ID: &str = "disk";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "room for green",
        versions: EVERY_VERSION,
        looks: &[Look {
            at: Place::Blue,
            sql: "select sum(pg_database_size(oid))::bigint as bytes from pg_database where datallowconn",
        }],
        judge,
    }
}

/// WAL written during the copy and room to breathe, beside the databases themselves.
const RESERVE: u64 = 512 << 20;

fn judge(evidence: &Evidence, cx: &Context) -> Vec<Finding> {
    let used: u64 = evidence.of(0).map(|(_, f)| u64::try_from(f.number("bytes")).unwrap_or(0)).sum();
    let Some(free) = cx.green.free_bytes else { return Vec::new() };
    let mib = |bytes: u64| bytes >> 20;
    let green = Spot::cluster(Side::Green);
    let what =
        format!("Blue's databases take {} MiB; where green will lie, {} MiB are free.", mib(used), mib(free));
    if free < used.saturating_add(RESERVE.min(used)) {
        let consequence =
            "The disk would fill up during the copy and green would stop, while blue keeps its WAL for it.";
        vec![
            Finding::new(ID, Severity::Blocker, &green, "green's file system", what, consequence)
                .next("make-room"),
        ]
    } else if free < used.saturating_mul(3) / 2 + RESERVE {
        let consequence = "The copy fits, but WAL and index builds may fill the rest.";
        vec![
            Finding::new(ID, Severity::Warning, &green, "green's file system", what, consequence)
                .next("make-room"),
        ]
    } else {
        Vec::new()
    }
}
