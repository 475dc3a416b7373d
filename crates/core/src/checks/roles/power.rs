//! `role-power`: what the tool's role must be able to do (H11).

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Fact, Finding, Look, Place, Severity, Spot};

const ID: &str = "role-power";
const SQL: &str =
    "select rolname::text as name, rolsuper as super from pg_roles where rolname = session_user";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "power of the role pgteal connects as",
        versions: EVERY_VERSION,
        looks: &[Look { at: Place::Blue, sql: SQL }, Look { at: Place::Green, sql: SQL }],
        judge,
    }
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    let powerless = evidence.of(0).chain(evidence.of(1)).filter(|(_, fact)| !fact.flag("super"));
    let finding = |(spot, fact): (&Spot, &Fact)| {
        let name = fact.text("name");
        Finding::new(
            ID,
            Severity::Blocker,
            spot,
            format!("role {name}"),
            format!("pgteal connects to {} as {name}, which is not a superuser.", spot.side),
            "It can neither publish all tables, nor read password verifiers, nor fence the server against DDL.",
        )
        .next("create-tool-role")
        .remedy(format!("ALTER ROLE {} SUPERUSER;", pgteal_postgres::quote::ident(&name)))
    };
    powerless.map(finding).collect()
}
