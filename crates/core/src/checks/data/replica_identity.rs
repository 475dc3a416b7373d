//! `replica-identity`: tables whose UPDATE and DELETE cannot be replicated as they are (H20 to H24).
//!
//! NOTHING and deferrable primary keys count as none. A partition's own setting decides, not its parent's
//! (PostgreSQL docs, "Publication"; `RelationGetReplicaIndex` in the sources).

use crate::checks::{
    Check, Context, EVERY_VERSION, Evidence, Fact, Finding, Look, Place, Severity, Spot, of_users,
};

const ID: &str = "replica-identity";

const SQL: &str = concat!(
    super::identity_equality::without_equality!(),
    r"select format('%I.%I', n.nspname, c.relname) as name, greatest(c.reltuples, 0)::bigint as rows,
    c.relreplident as identity, c.relispartition as leaf,
    (select ic.relname from pg_index i join pg_class ic on ic.oid = i.indexrelid
      where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate
        and i.indpred is null and i.indexprs is null
        and not exists (select 1 from unnest(i.indkey[0:i.indnkeyatts-1]) k
          join pg_attribute a on a.attrelid = c.oid and a.attnum = k where not a.attnotnull)
      order by i.indisprimary desc, i.indnkeyatts, ic.relname limit 1) as candidate,
    (select string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' order by a.attnum) from pg_attribute a
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.atttypid in (select oid from noeq)) as unequal
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind = 'r' and c.relpersistence = 'p' and ",
    of_users!(),
    r" and not (c.relreplident = 'f'
      or (c.relreplident = 'd' and exists (select 1 from pg_index i
            where i.indrelid = c.oid and i.indisprimary and i.indisvalid and i.indimmediate))
      or (c.relreplident = 'i' and exists (select 1 from pg_index i
            where i.indrelid = c.oid and i.indisreplident and i.indisvalid)))
  order by 1"
);

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "tables without a usable replica identity",
        versions: EVERY_VERSION,
        looks: &[Look { at: Place::BlueDatabases, sql: SQL }],
        judge,
    }
}

fn judge(evidence: &Evidence, _: &Context) -> Vec<Finding> {
    evidence.of(0).map(|(spot, fact)| judge_one(spot, fact)).collect()
}

fn judge_one(spot: &Spot, fact: &Fact) -> Finding {
    let name = fact.text("name");
    let why = match fact.text("identity").as_str() {
        "n" => "its replica identity is NOTHING",
        "i" => "the index of its replica identity is gone",
        _ => "it has no primary key that is checked at once",
    };
    let object = format!("table {name}");
    let what = format!(
        "{} {name} has no usable replica identity: {why}.",
        if fact.flag("leaf") { "Partition" } else { "Table" }
    );
    let (candidate, unequal) = (fact.text("candidate"), fact.text("unequal"));
    if !candidate.is_empty() {
        let consequence = format!(
            "`up` sets REPLICA IDENTITY USING INDEX {candidate} on blue for the time of the deployment."
        );
        return Finding::new(ID, Severity::Notice, spot, object, what, consequence);
    }
    if !unequal.is_empty() {
        let consequence = format!(
            "Only whole rows could identify a change, but {unequal} cannot be compared: the first UPDATE or DELETE stops the stream."
        );
        return Finding::new(ID, Severity::Blocker, spot, object, what, consequence).next("add-key").remedy(
            format!(
                "ALTER TABLE {name} ADD COLUMN pgteal_key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;"
            ),
        );
    }
    let searched = match fact.number("rows") {
        0 => "the whole table".to_owned(),
        rows => format!("all {rows} rows"),
    };
    let consequence = format!(
        "`up` sets REPLICA IDENTITY FULL: each UPDATE and DELETE writes the whole old row to WAL and searches {searched} on green."
    );
    Finding::new(ID, Severity::Warning, spot, object, what, consequence).next("add-key")
}
