//! Owns filling materialized views on green, which replication leaves empty, each after those it reads. Refuses to know
//! when the tables are in step, and which side is which: `blue` is where they are filled already.

use std::collections::{BTreeMap, BTreeSet};

use pgteal_postgres::Session;

use super::Result;
use crate::progress::{Progress, Tick, Unit};

/// The materialized views that are filled on blue and exist, empty, on green, in an order in which they can be filled.
pub async fn unpopulated(blue: &Session, green: &Session) -> Result<Vec<String>> {
    let filled = views(blue, true).await?;
    let empty = views(green, false).await?;
    let wanted: BTreeSet<String> = empty.intersection(&filled).cloned().collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    Ok(order(&wanted, &readings(green).await?))
}

/// Fills them. Returns how many.
pub async fn refresh(blue: &Session, green: &Session, progress: &Progress<'_>) -> Result<usize> {
    fill(green, &unpopulated(blue, green).await?, progress).await
}

/// Fills on the side `to` all that are filled on `from`, also those that were filled before: what was read then is old.
/// Returns how many.
pub async fn refresh_again(from: &Session, to: &Session, progress: &Progress<'_>) -> Result<usize> {
    let mut there = views(to, true).await?;
    there.extend(views(to, false).await?);
    let wanted: BTreeSet<String> = views(from, true).await?.intersection(&there).cloned().collect();
    if wanted.is_empty() {
        return Ok(0);
    }
    fill(to, &order(&wanted, &readings(to).await?), progress).await
}

async fn fill(green: &Session, views: &[String], progress: &Progress<'_>) -> Result<usize> {
    if green.version().major < 17 && !views.is_empty() {
        // From 17 on the server itself decides the search_path of a refresh; before, views whose functions name tables
        // without a schema need the one that their owners have by default.
        green.batch("setting the search_path", "SET search_path = public").await?;
    }
    for (done, view) in (1..).zip(views) {
        let sql = format!("REFRESH MATERIALIZED VIEW {view}");
        green.batch(&format!("filling materialized view {view}"), &sql).await?;
        progress(Tick { name: view, done, total: views.len() as u64, unit: Unit::Items });
    }
    Ok(views.len())
}

async fn views(s: &Session, populated: bool) -> Result<BTreeSet<String>> {
    let sql = "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind = 'm' and c.relispopulated = $1";
    let rows = s.query("listing materialized views", sql, &[&populated]).await?;
    let mut names = BTreeSet::new();
    for row in rows {
        names.insert(row.get(0)?);
    }
    Ok(names)
}

/// Which views read which, also plain ones in between.
async fn readings(s: &Session) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let sql = "select distinct format('%I.%I', n.nspname, c.relname), format('%I.%I', m.nspname, d.relname)
        from pg_rewrite r join pg_depend p on p.classid = 'pg_rewrite'::regclass and p.objid = r.oid
          and p.refclassid = 'pg_class'::regclass and p.refobjid <> r.ev_class
        join pg_class c on c.oid = r.ev_class join pg_namespace n on n.oid = c.relnamespace
        join pg_class d on d.oid = p.refobjid join pg_namespace m on m.oid = d.relnamespace
        where c.relkind in ('m', 'v') and d.relkind in ('m', 'v') and n.nspname not in ('pg_catalog', 'information_schema')";
    let rows = s.query("reading which views read which", sql, &[]).await?;
    let mut edges = BTreeMap::<String, BTreeSet<String>>::new();
    for row in rows {
        edges.entry(row.get(0)?).or_default().insert(row.get(1)?);
    }
    Ok(edges)
}

/// Each view after all it reads. Views cannot read each other in a circle.
fn order(wanted: &BTreeSet<String>, reads: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let (mut ordered, mut seen) = (Vec::new(), BTreeSet::new());
    let mut stack: Vec<(&String, bool)> = wanted.iter().rev().map(|v| (v, false)).collect();
    while let Some((view, expanded)) = stack.pop() {
        if expanded {
            if wanted.contains(view) {
                ordered.push(view.clone());
            }
        } else if seen.insert(view) {
            stack.push((view, true));
            stack.extend(reads.get(view).into_iter().flatten().map(|v| (v, false)));
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_comes_after_what_it_reads_also_through_plain_views() {
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<String>>();
        let reads = BTreeMap::from([("a".to_owned(), set(&["plain"])), ("plain".to_owned(), set(&["z"]))]);
        assert_eq!(order(&set(&["a", "m", "z"]), &reads), ["z", "a", "m"]);
    }
}
