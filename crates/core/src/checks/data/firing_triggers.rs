//! `firing-triggers`: triggers that also fire when replicated changes are applied (H28).

use crate::checks::{
    Check, Context, EVERY_VERSION, Evidence, Fact, Finding, Look, Place, Severity, Spot, of_users,
};

const ID: &str = "firing-triggers";

const SQL: &str = concat!(
    "select t.tgname::text as name, format('%I.%I', n.nspname, c.relname) as relation, t.tgenabled as enabled
      from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
      where t.tgenabled in ('A', 'R') and not t.tgisinternal and t.tgparentid = 0 and t.tgname <> '~pgteal_fence' and ",
    of_users!(),
    " order by 2, 1"
);

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "triggers that fire on replicated changes",
        versions: EVERY_VERSION,
        looks: &[Look { at: Place::BlueDatabases, sql: SQL }],
        judge,
    }
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    let finding = |(spot, fact): (&Spot, &Fact)| {
        let (name, table) = (fact.text("name"), fact.text("relation"));
        let mode = if fact.text("enabled") == "A" { "ALWAYS" } else { "REPLICA" };
        Finding::new(
            ID,
            Severity::Notice,
            spot,
            format!("trigger {name} on {table}"),
            format!("Trigger {name} on {table} is ENABLE {mode}."),
            "It would run a second time for every replicated row; pgteal keeps it disabled on the side that is not active.",
        )
    };
    evidence.of(0).map(finding).collect()
}
