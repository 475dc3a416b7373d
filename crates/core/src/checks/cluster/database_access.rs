//! `database-access`: a database that refuses connections cannot be carried.

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Finding, Look, Place, Severity};

const ID: &str = "database-access";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "databases that refuse connections",
        versions: EVERY_VERSION,
        looks: &[Look {
            at: Place::Blue,
            sql: "select datname from pg_database where not datallowconn and datname <> 'template0' order by 1",
        }],
        judge,
    }
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    let finding = |(spot, fact): (&_, &crate::checks::Fact)| {
        let name = fact.text("datname");
        Finding::new(
            ID,
            Severity::Blocker,
            spot,
            format!("database {name}"),
            format!("Database {name} refuses every connection (ALLOW_CONNECTIONS false)."),
            "Its tables can be neither read nor published, so it would be missing on green.",
        )
        .next("allow-connections")
        .remedy(format!(
            "ALTER DATABASE {} WITH ALLOW_CONNECTIONS true;",
            pgteal_postgres::quote::ident(&name)
        ))
    };
    evidence.of(0).map(finding).collect()
}
