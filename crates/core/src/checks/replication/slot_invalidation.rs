//! `slot-invalidation`: settings that let the server throw away a slot that is behind (H03).

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Finding, Look, Place, Severity, Spot};

const ID: &str = "slot-invalidation";
const SQL: &str = "select name, current_setting(name) as setting from pg_settings
  where (name = 'max_slot_wal_keep_size' and setting <> '-1') or (name = 'idle_replication_slot_timeout' and setting <> '0')";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "settings that invalidate slots",
        versions: EVERY_VERSION,
        looks: &[Look { at: Place::Blue, sql: SQL }, Look { at: Place::Green, sql: SQL }],
        judge,
    }
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    let finding = |(spot, fact): (&Spot, &crate::checks::Fact)| {
        let name = fact.text("name");
        Finding::new(
            ID,
            Severity::Warning,
            spot,
            format!("setting {name}"),
            format!("{name} is {} on {}.", fact.text("setting"), spot.side),
            "A stream that falls that far behind loses its slot, and green has to be copied again.",
        )
        .next("watch-slot")
    };
    evidence.of(0).chain(evidence.of(1)).map(finding).collect()
}
