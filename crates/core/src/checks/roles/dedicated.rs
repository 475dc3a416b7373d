//! `dedicated-role`: the fence lets our own role's sessions pass, so nobody else may use that role.

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Fact, Finding, Look, Place, Severity, Spot};

const ID: &str = "dedicated-role";

const SQL: &str = "select r.rolname::text as name, r.oid = 10 as bootstrap, current_setting('is_superuser') as super,
    (select count(*) from pg_stat_activity a where a.usesysid = r.oid and a.backend_type = 'client backend'
      and a.application_name !~ '^pgteal') as strangers,
    (select min(a.application_name) from pg_stat_activity a where a.usesysid = r.oid and a.backend_type = 'client backend'
      and a.application_name !~ '^pgteal') as example
  from pg_roles r where r.rolname = session_user";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "a role that only pgteal uses",
        versions: EVERY_VERSION,
        looks: &[Look { at: Place::Blue, sql: SQL }],
        judge,
    }
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    evidence.of(0).filter_map(|(spot, fact)| judge_one(spot, fact)).collect()
}

fn judge_one(spot: &Spot, fact: &Fact) -> Option<Finding> {
    let name = fact.text("name");
    let object = format!("role {name}");
    let consequence =
        "The fence lets this role pass: what others write with it during the switchover would be lost.";
    if fact.flag("bootstrap") {
        let what = format!(
            "pgteal connects as {name}, the bootstrap superuser, which people and cron jobs use too."
        );
        return Some(
            Finding::new(ID, Severity::Blocker, spot, object, what, consequence).next("create-tool-role"),
        );
    }
    let strangers = fact.number("strangers");
    (strangers > 0).then(|| {
        let what = format!(
            "{strangers} session(s) that are not pgteal's use role {name}, e.g. application `{}`.",
            fact.text("example")
        );
        Finding::new(ID, Severity::Blocker, spot, object, what, consequence).next("create-tool-role")
    })
}
