//! Who is doing what on the server now: sessions, long and prepared transactions; and ending sessions. Knows sessions of
//! ours by role and application name, and takes no decision.

use std::time::Duration;

use serde::Serialize;

use crate::error::Result;
use crate::session::Session;
use crate::wait::{self, Look};

/// One session (PostgreSQL docs, "pg_stat_activity"). Query texts are left out: they may hold anything.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Activity {
    /// The process.
    pub pid: i32,
    /// The role.
    pub user: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// `application_name`.
    pub application: String,
    /// The client's address; `None` for a Unix socket.
    pub client: Option<String>,
    /// `active`, `idle`, `idle in transaction` ...
    pub state: Option<String>,
    /// Age of the open transaction in milliseconds.
    pub transaction_ms: Option<f64>,
    /// Whether it has written.
    pub has_xid: bool,
    /// `client backend`, `walsender`, `autovacuum worker` ...
    pub backend_type: String,
}

const COLUMNS: &str = "pid, usename::text, datname::text, application_name, client_addr::text, state,
    extract(epoch FROM clock_timestamp() - xact_start)::float8 * 1000, backend_xid IS NOT NULL, backend_type";

/// Sessions that are not ours: `$1` is our role.
const NOT_OURS: &str = "NOT (usename = $1 AND application_name LIKE 'pgteal%')";

async fn read(s: &Session, doing: &str, sql: &str, role: &str) -> Result<Vec<Activity>> {
    let rows = s.query(doing, &s.prepared(doing, sql).await?, &[&role]).await?;
    rows.iter()
        .map(|row| {
            Ok(Activity {
                pid: row.get(0)?,
                user: row.get(1)?,
                database: row.get(2)?,
                application: row.get(3)?,
                client: row.get(4)?,
                state: row.get(5)?,
                transaction_ms: row.get(6)?,
                has_xid: row.get(7)?,
                backend_type: row.get(8)?,
            })
        })
        .collect()
}

/// Client sessions that are not ours, in all databases. `role` is our role.
pub async fn clients(s: &Session, role: &str) -> Result<Vec<Activity>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND {NOT_OURS} ORDER BY pid"
    );
    read(s, "listing client sessions", &sql, role).await
}

/// Transactions of others that have been open for longer than `age`, oldest first, in all databases.
pub async fn long_transactions(s: &Session, role: &str, age: Duration) -> Result<Vec<Activity>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND xact_start IS NOT NULL AND pid <> pg_backend_pid() AND {NOT_OURS}
        ORDER BY xact_start"
    );
    let mut found = read(s, "looking for long transactions", &sql, role).await?;
    let limit = age.as_secs_f64() * 1000.0;
    found.retain(|a| a.transaction_ms.is_some_and(|ms| ms > limit));
    Ok(found)
}

/// A prepared transaction.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PreparedTransaction {
    /// Its identifier.
    pub gid: String,
    /// The database.
    pub database: String,
    /// The role.
    pub owner: String,
    /// Age in milliseconds.
    pub age_ms: f64,
}

/// The prepared transactions of all databases, oldest first.
pub async fn prepared_transactions(s: &Session) -> Result<Vec<PreparedTransaction>> {
    let sql = "SELECT gid, database::text, owner::text, extract(epoch FROM clock_timestamp() - prepared)::float8 * 1000
        FROM pg_prepared_xacts ORDER BY prepared";
    let rows = s.query("listing prepared transactions", sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(PreparedTransaction {
                gid: row.get(0)?,
                database: row.get(1)?,
                owner: row.get(2)?,
                age_ms: row.get(3)?,
            })
        })
        .collect()
}

/// Which client sessions to end.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// Those in this database.
    Database(&'a str),
    /// Those in every database.
    All,
}

/// Ends client sessions that are not ours, and returns the processes told. They take a moment to go, see [`wait_gone`].
pub async fn terminate_others(s: &Session, role: &str, whose: Whose<'_>) -> Result<Vec<i32>> {
    // Materialized, or the planner may end sessions first and ask afterwards whose they were.
    let sql = format!(
        "WITH victim AS MATERIALIZED (SELECT pid FROM pg_stat_activity
            WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND {NOT_OURS}
            AND ($2::text IS NULL OR datname = $2))
        SELECT pid FROM victim WHERE pg_terminate_backend(pid)"
    );
    let database = match whose {
        Whose::Database(name) => Some(name),
        Whose::All => None,
    };
    let rows = s.query("ending client sessions", &sql, &[&role, &database]).await?;
    rows.iter().map(|r| r.get(0)).collect()
}

/// Client sessions of this database, not ours, that were opened before its fence was raised.
pub async fn clients_before_fence(s: &Session, role: &str) -> Result<Vec<i32>> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
        AND {NOT_OURS} AND datname = current_database() AND backend_start < (SELECT (value->>'at')::timestamptz
          FROM pgteal.state WHERE key = 'fence' AND (value->>'raised')::bool)"
    );
    let rows = s.query("looking for sessions from before the fence", &sql, &[&role]).await?;
    rows.iter().map(|r| r.get(0)).collect()
}

/// Client sessions of this database, not ours, that were opened since its fence was raised: read-only by default for as
/// long as they live, also once the fence is lowered.
pub async fn clients_since_fence(s: &Session, role: &str) -> Result<Vec<i32>> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
        AND {NOT_OURS} AND datname = current_database() AND backend_start >= (SELECT (value->>'at')::timestamptz
          FROM pgteal.state WHERE key = 'fence' AND (value->>'raised')::bool)"
    );
    let rows = s.query("looking for sessions opened under the fence", &sql, &[&role]).await?;
    rows.iter().map(|r| r.get(0)).collect()
}

/// Ends these processes and returns those that were there.
pub async fn terminate(s: &Session, pids: &[i32]) -> Result<Vec<i32>> {
    let sql = "SELECT p FROM unnest($1::int[]) p WHERE pg_terminate_backend(p)";
    s.query("ending sessions", sql, &[&pids]).await?.iter().map(|r| r.get(0)).collect()
}

/// Waits until none of these processes is left.
pub async fn wait_gone(s: &Session, pids: &[i32], bound: Duration) -> Result<()> {
    wait::until(s, "sessions to end", bound, Duration::from_millis(2), || async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)";
        let left: i64 = s.query_one("looking for sessions that must end", sql, &[&pids]).await?.get(0)?;
        Ok(if left == 0 { Look::Reached(()) } else { Look::NotYet(format!("{left} sessions")) })
    })
    .await
}
