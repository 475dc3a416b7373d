//! `extensions`: what blue's databases use must be installed where green runs (H41).

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Fact, Finding, Look, Place, Severity, Spot};

const ID: &str = "extensions";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "extensions available to green",
        versions: EVERY_VERSION,
        looks: &[Look {
            at: Place::BlueDatabases,
            sql: "select extname::text as name, extversion as version from pg_extension where extname <> 'plpgsql' order by 1",
        }],
        judge,
    }
}

/// Extensions that keep their own background work or their own storage, which a second copy would double or break (H42).
const REFUSED: [(&str, &str); 2] = [
    ("timescaledb", "Its chunks and catalogue are not carried by logical replication."),
    ("citus", "Its shards and metadata are not carried by logical replication."),
];

fn judge(evidence: &Evidence, cx: &Context) -> Vec<Finding> {
    evidence.of(0).filter_map(|(spot, fact)| judge_one(spot, fact, cx)).collect()
}

fn judge_one(spot: &Spot, fact: &Fact, cx: &Context) -> Option<Finding> {
    let (name, version) = (fact.text("name"), fact.text("version"));
    let database = spot.database.as_deref().unwrap_or("?");
    let object = format!("extension {name}");
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        let what = format!("Database {database} uses extension {name} {version}.");
        return Some(Finding::new(ID, Severity::Blocker, spot, object, what, *why).next("remove-extension"));
    }
    let available = cx.green.extensions.as_ref()?;
    match available.get(&name) {
        None => {
            let what = format!(
                "Database {database} uses extension {name} {version}; green's server does not have it."
            );
            let consequence = "The schema cannot be made on green without it.";
            Some(
                Finding::new(ID, Severity::Blocker, spot, object, what, consequence)
                    .next("install-extension"),
            )
        }
        Some(other) if *other != version => {
            let what =
                format!("Database {database} uses extension {name} {version}; green will have {other}.");
            let consequence =
                "Functions, operators and tables of the extension may differ between the sides.";
            Some(Finding::new(ID, Severity::Notice, spot, object, what, consequence))
        }
        Some(_) => None,
    }
}
