//! The transactions that held a table lock when the fence was raised: they alone can still write. Knows locks only.

use std::time::Duration;

use serde::Serialize;

use crate::activity;
use crate::error::Result;
use crate::session::Session;
use crate::wait::{self, Look};

/// How often the lockers are looked at.
const POLL: Duration = Duration::from_micros(500);

/// A transaction that may still write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Locker {
    /// Identifies the transaction as long as it lasts (PostgreSQL docs, "pg_locks").
    pub virtualtransaction: String,
    /// Its process; `None` for a prepared transaction.
    pub pid: Option<i32>,
    /// It holds an ACCESS EXCLUSIVE lock, as DDL and TRUNCATE do: it may bring tables without the fence, so
    /// [`super::unarmed`] is to be asked again when it has ended.
    pub exclusive: bool,
}

/// Table locks of this database that a writer may hold. Not counted: locks that no writer takes, workers that write no
/// user data of their own (autovacuum holds ROW EXCLUSIVE on indexes for seconds), apply workers, ourselves.
const LOCKERS: &str = "SELECT l.virtualtransaction, l.pid, bool_or(l.mode = 'AccessExclusiveLock') FROM pg_locks l
    WHERE l.locktype = 'relation' AND l.granted
      AND l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'ShareUpdateExclusiveLock') AND l.relation >= 16384
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.pid IS DISTINCT FROM pg_backend_pid()
      AND NOT EXISTS (SELECT 1 FROM pg_stat_activity a WHERE a.pid = l.pid
        AND (a.backend_type IN ('autovacuum worker', 'walsender') OR a.backend_type LIKE 'logical replication%'))
    GROUP BY l.virtualtransaction, l.pid";

const LEFT: &str =
    "SELECT l.virtualtransaction, l.pid, bool_or(l.mode = 'AccessExclusiveLock') FROM pg_locks l
    WHERE l.virtualtransaction = ANY($1) GROUP BY l.virtualtransaction, l.pid";

/// The lockers of this instant. To be taken **once**, right after the raise: taken again, the set would never get empty
/// while strangers try and are refused.
pub async fn lockers(s: &Session) -> Result<Vec<Locker>> {
    read(s, "looking for transactions that may still write", LOCKERS, &[]).await
}

async fn read(
    s: &Session,
    doing: &str,
    sql: &str,
    params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<Vec<Locker>> {
    let rows = s.query(doing, &s.prepared(doing, sql).await?, params).await?;
    rows.iter()
        .map(|r| Ok(Locker { virtualtransaction: r.get(0)?, pid: r.get(1)?, exclusive: r.get(2)? }))
        .collect()
}

/// How long the oldest of the transactions that would be [`lockers`] now has been open, with its process; `None` if there is
/// none. A prepared transaction has no process and is not among them.
pub async fn oldest_locker(s: &Session) -> Result<Option<(i32, Duration)>> {
    let sql = format!(
        "SELECT a.pid, greatest(extract(epoch FROM clock_timestamp() - a.xact_start)::float8, 0) FROM ({LOCKERS}) l
         JOIN pg_stat_activity a ON a.pid = l.pid WHERE a.xact_start IS NOT NULL ORDER BY a.xact_start LIMIT 1"
    );
    let doing = "looking for the oldest transaction that has written";
    let row = s.query_opt(doing, &s.prepared(doing, &sql).await?, &[]).await?;
    row.map(|row| Ok((row.get(0)?, Duration::from_secs_f64(row.get(1)?)))).transpose()
}

/// Waits until none of these transactions is left.
pub async fn wait_lockers(s: &Session, lockers: &[Locker], bound: Duration) -> Result<()> {
    if lockers.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = lockers.iter().map(|l| l.virtualtransaction.as_str()).collect();
    wait::until(s, "transactions that began before the fence to end", bound, POLL, || async {
        let left = read(s, "waiting for transactions that may still write", LEFT, &[&ids]).await?;
        if left.is_empty() {
            return Ok(Look::Reached(()));
        }
        let shown: Vec<String> = left
            .iter()
            .take(5)
            .map(|l| {
                l.pid.map_or_else(|| "a prepared transaction".to_owned(), |pid| format!("process {pid}"))
            })
            .collect();
        Ok(Look::NotYet(format!("{} left: {}", left.len(), shown.join(", "))))
    })
    .await
}

/// Ends the sessions of those that are still there and returns their processes. A prepared transaction has none and
/// stays.
pub async fn terminate_lockers(s: &Session, lockers: &[Locker]) -> Result<Vec<i32>> {
    let ids: Vec<&str> = lockers.iter().map(|l| l.virtualtransaction.as_str()).collect();
    let left = read(s, "looking for transactions that may still write", LEFT, &[&ids]).await?;
    let mut pids: Vec<i32> = left.iter().filter_map(|l| l.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    activity::terminate(s, &pids).await
}
