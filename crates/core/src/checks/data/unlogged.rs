//! `unlogged-tables`: logical replication never sees them (H25).

use crate::checks::{
    Check, Context, EVERY_VERSION, Evidence, Fact, Finding, Look, Place, Severity, Spot, of_users,
};

const ID: &str = "unlogged-tables";

const SQL: &str = concat!(
    "select format('%I.%I', n.nspname, c.relname) as name, pg_relation_size(c.oid) as bytes
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind = 'r' and c.relpersistence = 'u' and ",
    of_users!(),
    " order by 1"
);

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "unlogged tables",
        versions: EVERY_VERSION,
        looks: &[Look { at: Place::BlueDatabases, sql: SQL }],
        judge,
    }
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    let finding = |(spot, fact): (&Spot, &Fact)| {
        let name = fact.text("name");
        Finding::new(
            ID,
            Severity::Blocker,
            spot,
            format!("table {name}"),
            format!("Table {name} is UNLOGGED and holds {} KiB.", fact.number("bytes") >> 10),
            "Its rows are in no WAL: the table exists on green, and is empty there.",
        )
        .next("log-or-waive-table")
        .remedy(format!("ALTER TABLE {name} SET LOGGED;"))
    };
    evidence.of(0).map(finding).collect()
}
