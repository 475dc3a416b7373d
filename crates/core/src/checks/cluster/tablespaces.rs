//! `tablespaces`: tablespaces of users are not carried yet (H49).

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Finding, Look, Place, Severity};

const ID: &str = "tablespaces";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "tablespaces of users",
        versions: EVERY_VERSION,
        looks: &[Look {
            at: Place::Blue,
            sql: "select spcname, pg_tablespace_location(oid) as location from pg_tablespace where spcname !~ '^pg_' order by 1",
        }],
        judge,
    }
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    let finding = |(spot, fact): (&_, &crate::checks::Fact)| {
        let name = fact.text("spcname");
        Finding::new(
            ID,
            Severity::Blocker,
            spot,
            format!("tablespace {name}"),
            format!("Tablespace {name} lies in {}.", fact.text("location")),
            "Green has no such directory: tables and databases placed there cannot be made on green.",
        )
        .next("move-out-of-tablespace")
    };
    evidence.of(0).map(finding).collect()
}
