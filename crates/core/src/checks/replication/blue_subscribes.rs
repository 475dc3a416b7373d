//! `blue-subscribes`: an apply worker of somebody else writes to blue past the fence (H06).

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Finding, Look, Place, Severity};

const ID: &str = "blue-subscribes";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "subscriptions of blue itself",
        versions: EVERY_VERSION,
        looks: &[Look {
            at: Place::Blue,
            sql: "select s.subname, d.datname from pg_subscription s join pg_database d on d.oid = s.subdbid
              where s.subname !~ '^pgteal_' and s.subenabled order by 2, 1",
        }],
        judge,
    }
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    let finding = |(spot, fact): (&_, &crate::checks::Fact)| {
        let name = fact.text("subname");
        Finding::new(
            ID,
            Severity::Blocker,
            spot,
            format!("subscription {name}"),
            format!("Blue subscribes to another server through {name} in database {}.", fact.text("datname")),
            "Its apply worker ignores the fence: what it writes during the switchover would be lost on green.",
        )
        .next("disable-subscription")
        .remedy(format!("ALTER SUBSCRIPTION {} DISABLE;", pgteal_postgres::quote::ident(&name)))
    };
    evidence.of(0).map(finding).collect()
}
