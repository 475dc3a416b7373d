//! `foreign-objects`: objects that bear our prefix but belong to another deployment, or to none.

use pgteal_postgres::quote;

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Fact, Finding, Look, Place, Severity, Spot};

const ID: &str = "foreign-objects";

const CLUSTER: &str = "select 'replication slot' as kind, slot_name::text as name, null as comment
    from pg_replication_slots where slot_name ~ '^pgteal_'
  union all
  select 'subscription', subname, obj_description(oid, 'pg_subscription') from pg_subscription where subname ~ '^pgteal_'";

const DATABASE: &str = "select 'publication' as kind, pubname::text as name, obj_description(oid, 'pg_publication') as comment
    from pg_publication where pubname ~ '^pgteal_'
  union all
  select 'schema', nspname, obj_description(oid, 'pg_namespace') from pg_namespace where nspname = 'pgteal'
  union all
  select 'event trigger', evtname, obj_description(oid, 'pg_event_trigger') from pg_event_trigger where evtname ~ '^pgteal_'";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "objects with our names that are not ours",
        versions: EVERY_VERSION,
        looks: &[
            Look { at: Place::Blue, sql: CLUSTER },
            Look { at: Place::Green, sql: CLUSTER },
            Look { at: Place::BlueDatabases, sql: DATABASE },
            Look { at: Place::GreenDatabases, sql: DATABASE },
        ],
        judge,
    }
}

fn judge(evidence: &Evidence, cx: &Context) -> Vec<Finding> {
    (0..4).flat_map(|look| evidence.of(look)).filter_map(|(spot, fact)| judge_one(spot, fact, cx)).collect()
}

fn judge_one(spot: &Spot, fact: &Fact, cx: &Context) -> Option<Finding> {
    let (kind, name, comment) = (fact.text("kind"), fact.text("name"), fact.text("comment"));
    let owner =
        if name == "pgteal" { comment.strip_prefix("pgteal deployment ") } else { deployment_of(&name) };
    if let (Some(owner), Some(ours)) = (owner, &cx.deployment)
        && owner == ours.as_str()
    {
        return None;
    }
    let whose =
        owner.map_or_else(|| "names no deployment".to_owned(), |id| format!("belongs to deployment {id}"));
    Some(
        Finding::new(
            ID,
            Severity::Blocker,
            spot,
            format!("{kind} {name}"),
            format!("The {kind} {name} is on {}; it {whose}.", spot.side),
            "pgteal neither adopts nor drops what is not its own; a slot that nobody reads keeps WAL until the disk is full.",
        )
        .next("clear-foreign-object")
        .remedy(drop(&kind, &name)),
    )
}

/// The statement that an operator gives who knows that nobody needs it.
fn drop(kind: &str, name: &str) -> String {
    let quoted = quote::ident(name);
    match kind {
        "replication slot" => format!("SELECT pg_drop_replication_slot({});", quote::literal(name)),
        "subscription" => format!(
            "ALTER SUBSCRIPTION {quoted} DISABLE;\nALTER SUBSCRIPTION {quoted} SET (slot_name = NONE);\nDROP SUBSCRIPTION {quoted};"
        ),
        "schema" => format!("DROP SCHEMA {quoted} CASCADE;"),
        kind => format!("DROP {} {quoted};", kind.to_uppercase()),
    }
}

/// The deployment in a name like `pgteal_0123abcd_fwd`.
fn deployment_of(name: &str) -> Option<&str> {
    let id = name.strip_prefix("pgteal_")?.split('_').next()?;
    crate::deployment::DeploymentId::parse(id).is_ok().then_some(id)
}
