//! `large-objects`: logical replication does not carry them (H26).

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Fact, Finding, Look, Place, Severity, Spot};
use crate::deployment::Side;

const ID: &str = "large-objects";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "large objects",
        versions: EVERY_VERSION,
        looks: &[Look {
            at: Place::BlueDatabases,
            sql: "select count(*) as n from pg_largeobject_metadata having count(*) > 0",
        }],
        judge,
    }
}

/// What a finding and its waiver are about.
fn object(database: &str) -> String {
    format!("large objects of database {database}")
}

/// The finding about a database that has large objects.
pub(crate) fn of(database: &str) -> Finding {
    let spot = Spot { side: Side::Blue, database: Some(database.to_owned()) };
    Finding::new(ID, Severity::Blocker, &spot, object(database), "", "")
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    let finding = |(spot, fact): (&Spot, &Fact)| {
        let database = spot.database.as_deref().unwrap_or("?");
        Finding::new(
            ID,
            Severity::Blocker,
            spot,
            object(database),
            format!("Database {database} holds {} large object(s).", fact.number("n")),
            "Logical replication does not carry them: the OIDs stored in tables would point to nothing on green.",
        )
        .next("move-large-objects")
    };
    evidence.of(0).map(finding).collect()
}
