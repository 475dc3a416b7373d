//! `role-verifiers`: password verifiers must be readable, and clear that MD5 ones are (H48).

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Fact, Finding, Look, Place, Severity, Spot};

const ID: &str = "role-verifiers";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "password verifiers of the roles",
        versions: EVERY_VERSION,
        looks: &[
            Look {
                at: Place::Blue,
                sql: "select session_user::text as name where not has_table_privilege('pg_catalog.pg_authid', 'select')",
            },
            Look {
                at: Place::Blue,
                // By pg_authid itself: whoever cannot read it is already named by the first question.
                sql: "select count(*) as n, min(rolname::text) as example from pg_authid
                  where rolcanlogin and rolpassword like 'md5%' having count(*) > 0",
            },
        ],
        judge,
    }
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    let unreadable = |(spot, fact): (&Spot, &Fact)| {
        let name = fact.text("name");
        Finding::new(
            ID,
            Severity::Blocker,
            spot,
            "password verifiers",
            format!("Role {name} cannot read pg_authid."),
            "Roles would arrive on green without their passwords, and nobody could log in after the switchover.",
        )
        .next("create-tool-role")
    };
    let old = |(spot, fact): (&Spot, &Fact)| {
        Finding::new(
            ID,
            Severity::Notice,
            spot,
            "password verifiers",
            format!("{} role(s) have an MD5 verifier, e.g. {}.", fact.number("n"), fact.text("example")),
            "They are carried as they are and keep working; PostgreSQL 18 deprecates them.",
        )
    };
    evidence.of(0).map(unreadable).chain(evidence.of(1).map(old)).collect()
}
