//! `identity-equality`: REPLICA IDENTITY FULL on a table with a column that cannot be compared (H24).

use crate::checks::{
    Check, Context, EVERY_VERSION, Evidence, Fact, Finding, Look, Place, Severity, Spot, of_users,
};

const ID: &str = "identity-equality";

/// `noeq`: every type without an equality that the apply worker would find, i.e. without a default btree or hash operator
/// class for it or for a type it is binary-coercible to; then all arrays, domains and composites made of such types
/// (`lookup_type_cache` with `TYPECACHE_EQ_OPR` in the sources).
macro_rules! without_equality {
    () => {
        r"with recursive comparable(oid) as (select opcintype from pg_opclass o join pg_am m on m.oid = o.opcmethod
      where o.opcdefault and m.amname in ('btree', 'hash')),
  plain(oid) as (select t.oid from pg_type t where t.typtype = 'b' and t.typcategory <> 'A'
      and t.oid not in (select oid from comparable)
      and not exists (select 1 from pg_cast k where k.castsource = t.oid and k.castmethod = 'b' and k.castcontext = 'i'
        and k.casttarget in (select oid from comparable))),
  noeq(oid) as (select oid from plain
    union
    select t.oid from noeq join pg_type t on (t.typcategory = 'A' and t.typelem = noeq.oid)
      or (t.typtype = 'd' and t.typbasetype = noeq.oid)
      or (t.typtype = 'c' and exists (select 1 from pg_attribute a
            where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped and a.atttypid = noeq.oid))) "
    };
}
pub(super) use without_equality;

const SQL: &str = concat!(
    without_equality!(),
    r"select format('%I.%I', n.nspname, c.relname) as name,
    string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' order by a.attnum) as columns
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.atttypid in (select oid from noeq)
  where c.relkind = 'r' and c.relpersistence = 'p' and c.relreplident = 'f' and ",
    of_users!(),
    " group by 1 order by 1"
);

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "replica identity FULL over columns without equality",
        versions: EVERY_VERSION,
        looks: &[Look { at: Place::BlueDatabases, sql: SQL }],
        judge,
    }
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    let finding = |(spot, fact): (&Spot, &Fact)| {
        let name = fact.text("name");
        Finding::new(
            ID,
            Severity::Blocker,
            spot,
            format!("table {name}"),
            format!(
                "Table {name} has REPLICA IDENTITY FULL, and {} cannot be compared.",
                fact.text("columns")
            ),
            "The first UPDATE or DELETE stops the stream: green cannot find the row.",
        )
        .next("add-key")
    };
    evidence.of(0).map(finding).collect()
}
