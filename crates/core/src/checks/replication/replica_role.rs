//! `replica-role`: sessions that run with triggers switched off walk through the fence (H14).

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Finding, Look, Place, Severity};

const ID: &str = "replica-role";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "sessions that skip triggers",
        versions: EVERY_VERSION,
        looks: &[Look {
            at: Place::Blue,
            sql: "select coalesce('role ' || r.rolname, 'every role') || coalesce(' in database ' || d.datname, '') as object
                from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole
                left join pg_database d on d.oid = s.setdatabase, unnest(s.setconfig) c
                where c ~ '^session_replication_role=' and c !~ '=origin$'
              union all
              select 'the configuration file' from pg_settings where name = 'session_replication_role'
                and setting <> 'origin' and source <> 'session'",
        }],
        judge,
    }
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    let finding = |(spot, fact): (&_, &crate::checks::Fact)| {
        let object = fact.text("object");
        Finding::new(
            ID,
            Severity::Blocker,
            spot,
            format!("setting session_replication_role of {object}"),
            format!("session_replication_role is set for {object}."),
            "Such sessions skip triggers, so also the fence: what they write during the switchover would be lost.",
        )
        .next("reset-replication-role")
    };
    evidence.of(0).map(finding).collect()
}
