//! `row-security`: a role that does not bypass row security copies fewer rows, without any error (H31).

use crate::checks::{
    Check, Context, EVERY_VERSION, Evidence, Fact, Finding, Look, Place, Severity, Spot, of_users,
};

const ID: &str = "row-security";

const SQL: &str = concat!(
    "select format('%I.%I', n.nspname, c.relname) as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relrowsecurity and ",
    of_users!(),
    " and not (select rolsuper or rolbypassrls from pg_roles where rolname = session_user) order by 1"
);

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "row security that hides rows from the copy",
        versions: EVERY_VERSION,
        looks: &[Look { at: Place::BlueDatabases, sql: SQL }],
        judge,
    }
}

fn judge(evidence: &Evidence, cx: &Context) -> Vec<Finding> {
    let finding = |(spot, fact): (&Spot, &Fact)| {
        let name = fact.text("name");
        Finding::new(
            ID,
            Severity::Blocker,
            spot,
            format!("table {name}"),
            format!("Table {name} has row level security, and role {} does not bypass it.", cx.tool_role),
            "The initial copy would leave out rows, and nothing would report an error.",
        )
        .next("grant-bypassrls")
        .remedy(format!("ALTER ROLE {} BYPASSRLS;", pgteal_postgres::quote::ident(&cx.tool_role)))
    };
    evidence.of(0).map(finding).collect()
}
