//! `wal-level`: blue must write logical WAL (H01).

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Finding, Look, Place, Severity};

const ID: &str = "wal-level";
const SQL: &str = "select setting from pg_settings where name = 'wal_level' and setting <> 'logical'";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "wal_level on both sides",
        versions: EVERY_VERSION,
        looks: &[Look { at: Place::Blue, sql: SQL }, Look { at: Place::Green, sql: SQL }],
        judge,
    }
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    let finding = |(spot, fact): (&crate::checks::Spot, &crate::checks::Fact)| {
        Finding::new(
            ID,
            Severity::Blocker,
            spot,
            "setting wal_level",
            format!("wal_level is {} on {}; logical replication needs logical.", fact.text("setting"), spot.side),
            "No change can be read from its WAL. Setting it takes one restart, the only one pgteal ever asks of blue.",
        )
        .next("set-wal-level")
        .remedy("ALTER SYSTEM SET wal_level = 'logical';  -- then restart the server")
    };
    evidence.of(0).chain(evidence.of(1)).map(finding).collect()
}
