//! `materialized-views`: not replicated, refreshed by `up` (H34).

use crate::checks::{
    Check, Context, EVERY_VERSION, Evidence, Fact, Finding, Look, Place, Severity, Spot, of_users,
};

const ID: &str = "materialized-views";

const SQL: &str = concat!(
    "select format('%I.%I', n.nspname, c.relname) as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind = 'm' and c.relispopulated and ",
    of_users!(),
    " order by 1"
);

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "materialized views",
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
            Severity::Notice,
            spot,
            format!("materialized view {name}"),
            format!("Materialized view {name} is not replicated."),
            "pgteal refreshes it on green once the tables are in step, and again when a switchover begins; a REFRESH on blue does not reach green.",
        )
    };
    evidence.of(0).map(finding).collect()
}
