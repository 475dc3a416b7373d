//! Owns giving green's planner statistics, which no copy brings: ANALYZE of every table, larger ones first. Refuses to
//! know when.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures::future::try_join_all;
use pgteal_postgres::{Purpose, Server, Session};

use super::Result;
use crate::progress::{Progress, Tick, Unit};

/// Tables and filled materialized views of users that were never analyzed, larger first, partitioned ones last.
pub async fn unanalyzed(s: &Session) -> Result<Vec<String>> {
    // Since 18 ONLY keeps ANALYZE of a partitioned table from doing its partitions again; before, it does them anyway,
    // so there the partitions are not done by themselves.
    let sql = "select case when c.relkind = 'p' and $1 then 'ONLY ' else '' end || format('%I.%I', n.nspname, c.relname)
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.reltuples < 0 and (c.relkind in ('r', 'p') or c.relkind = 'm' and c.relispopulated)
          and n.nspname not in ('pg_catalog', 'information_schema', 'pgteal') and n.nspname !~ '^pg_(toast|temp)'
          and ($1 or not c.relispartition)
        order by c.relkind = 'p', pg_relation_size(c.oid) desc, 1";
    let only = s.version().major >= 18;
    let rows = s.query("listing tables without statistics", sql, &[&only]).await?;
    let mut names = Vec::with_capacity(rows.len());
    for row in rows {
        names.push(row.get(0)?);
    }
    Ok(names)
}

/// Analyzes them with `jobs` sessions. Returns how many.
pub async fn analyze(green: &Server, database: &str, jobs: usize, progress: &Progress<'_>) -> Result<usize> {
    let session = green.connect(database, Purpose::long("analyze")).await?;
    let tables = unanalyzed(&session).await?;
    let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
    let (tables, next, done) = (&tables, &next, &done);
    let total = tables.len() as u64;
    let work = |session: Session| async move {
        while let Some(table) = tables.get(next.fetch_add(1, Ordering::Relaxed)) {
            session.batch(&format!("analyzing {table}"), &format!("ANALYZE {table}")).await?;
            let done = 1 + done.fetch_add(1, Ordering::Relaxed);
            progress(Tick { name: table, done, total, unit: Unit::Items });
        }
        Ok::<_, super::CarryError>(())
    };
    let mut sessions = vec![session];
    while sessions.len() < jobs.clamp(1, 64).min(tables.len()) {
        sessions.push(green.connect(database, Purpose::long("analyze")).await?);
    }
    try_join_all(sessions.into_iter().map(work)).await?;
    Ok(tables.len())
}
