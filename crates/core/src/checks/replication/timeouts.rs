//! `replication-timeouts`: time limits that would kill the copy and the streams (H12). pgteal overrides them for its role.

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Finding, Look, Place, Severity};

const ID: &str = "replication-timeouts";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "time limits that reach replication",
        versions: EVERY_VERSION,
        looks: &[Look {
            at: Place::Blue,
            // The session's own values hide what the files say, hence reset_val only for untouched settings, and the
            // settings of databases and roles by their own table.
            sql: "select name as object, setting || coalesce(unit, '') as setting from pg_settings
                where name in ('statement_timeout','lock_timeout','idle_in_transaction_session_timeout',
                  'transaction_timeout','idle_session_timeout') and setting <> '0'
                  and source in ('configuration file','command line','environment variable')
              union all
              select coalesce('role ' || r.rolname, 'every role') || coalesce(' in database ' || d.datname, ''), c
                from pg_db_role_setting s left join pg_roles r on r.oid = s.setrole
                left join pg_database d on d.oid = s.setdatabase, unnest(s.setconfig) c
                where c ~ '^(statement|lock|transaction|idle_in_transaction_session|idle_session)_timeout='
                  and c !~ '=0$' and r.rolname is distinct from session_user",
        }],
        judge,
    }
}

fn judge(evidence: &Evidence, cx: &Context) -> Vec<Finding> {
    let finding = |(spot, fact): (&_, &crate::checks::Fact)| {
        let object = fact.text("object");
        Finding::new(
            ID,
            Severity::Notice,
            spot,
            object.clone(),
            format!("A time limit is set: {object}, {}.", fact.text("setting")),
            format!(
                "It would cancel the initial copy again and again; `up` sets it to 0 for role {} alone.",
                cx.tool_role
            ),
        )
    };
    evidence.of(0).map(finding).collect()
}
