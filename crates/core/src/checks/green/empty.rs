//! `green-empty`: green must hold nothing of anybody before it is filled.

use crate::checks::{
    Check, Context, EVERY_VERSION, Evidence, Fact, Finding, Look, Place, Severity, Spot, of_users,
};

const ID: &str = "green-empty";

const CLUSTER: &str = "select 'database' as kind, datname::text as name from pg_database
    where datname not in ('postgres', 'template0', 'template1')
  union all select 'subscription', subname from pg_subscription
  union all select 'replication slot', slot_name from pg_replication_slots
  union all select 'prepared transaction', gid from pg_prepared_xacts
  order by 1, 2 limit 50";

const DATABASE: &str = concat!(
    "(select case c.relkind when 'S' then 'sequence' when 'v' then 'view' when 'm' then 'materialized view' else 'table' end as kind,
        format('%I.%I', n.nspname, c.relname) as name
      from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') and ",
    of_users!(),
    " and not exists (select 1 from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
      order by 2 limit 20)
    union all (select 'function', p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace where ",
    of_users!(),
    " and not exists (select 1 from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
      order by 2 limit 20)
    union all (select 'publication', pubname::text from pg_publication order by 2 limit 20)"
);

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "an empty green",
        versions: EVERY_VERSION,
        looks: &[Look { at: Place::Green, sql: CLUSTER }, Look { at: Place::GreenDatabases, sql: DATABASE }],
        judge,
    }
}

fn judge(evidence: &Evidence, cx: &Context) -> Vec<Finding> {
    // Mistaken for green, a server in use is told by the order of the versions; all that it holds would only hide that.
    if !cx.green.must_be_empty || cx.older_green().is_some() {
        return Vec::new();
    }
    let finding = |(spot, fact): (&Spot, &Fact)| {
        let (kind, name) = (fact.text("kind"), fact.text("name"));
        let place = spot.database.as_ref().map_or_else(String::new, |d| format!(" in database {d}"));
        Finding::new(
            ID,
            Severity::Blocker,
            spot,
            format!("{kind} {name}"),
            format!("Green already holds {kind} {name}{place}."),
            "pgteal fills only an empty server, so that what it finds there later is its own and nothing of yours is overwritten.",
        )
        .next("empty-green")
    };
    evidence.of(0).chain(evidence.of(1)).map(finding).collect()
}
