//! The fence's trigger on every table, put there and taken away without standing in anybody's way. Knows tables and
//! locks, not whether the fence is up.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_postgres::error::SqlState;

use crate::catalog::{TableName, USER_SCHEMA};
use crate::error::{Error, Result};
use crate::names;
use crate::quote::ident;
use crate::session::Session;

/// Tables per transaction; each table's lock is held until the transaction's end.
const BATCH: usize = 100;

/// How long a table's lock is waited for, since writers queue behind the wait.
const LOCK_TIMEOUT: Duration = Duration::from_millis(50);

/// Pause before a table that was busy is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How far arming or disarming is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ArmProgress {
    /// Tables done in this call.
    pub done: usize,
    /// Tables to do in this call.
    pub total: usize,
}

/// The tables without an enabled fence trigger for every kind of write, our own schema left out. Must be empty for the
/// fence to hold; a table that was made after the installation shows up here.
pub async fn unarmed(s: &Session) -> Result<Vec<TableName>> {
    // NOT IN, because it is hashed whatever the planner thinks of catalogues that were never analyzed.
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND {USER_SCHEMA} AND c.oid NOT IN (
          SELECT t.tgrelid FROM pg_trigger t WHERE t.tgfoid = (SELECT to_regprocedure('pgteal.fence()'))
            AND t.tgenabled = 'A' AND t.tgqual IS NULL AND (t.tgtype & 63) = 62 AND t.tgattr = '') ORDER BY 1, 2"
    );
    tables(s, "looking for tables without the fence", &sql).await
}

async fn armed(s: &Session) -> Result<Vec<TableName>> {
    let sql = "SELECT DISTINCT n.nspname::text, c.relname::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE t.tgfoid = (SELECT to_regprocedure('pgteal.fence()')) AND n.nspname <> 'pgteal' ORDER BY 1, 2";
    tables(s, "looking for tables with the fence", sql).await
}

async fn tables(s: &Session, doing: &str, sql: &str) -> Result<Vec<TableName>> {
    let rows = s.query(doing, &s.prepared(doing, sql).await?, &[]).await?;
    rows.iter().map(|r| Ok(TableName { schema: r.get(0)?, name: r.get(1)? })).collect()
}

pub(super) async fn arm_all(
    s: &mut Session,
    bound: Duration,
    progress: &mut (dyn FnMut(ArmProgress) + Send),
) -> Result<()> {
    let todo = unarmed(s).await?;
    let create = |t: &TableName| {
        // A trigger of our name that does not qualify (disabled, changed) is replaced, under the same lock.
        format!(
            "CREATE OR REPLACE TRIGGER {fence} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}
             FOR EACH STATEMENT EXECUTE FUNCTION pgteal.fence();
             ALTER TABLE ONLY {table} ENABLE ALWAYS TRIGGER {fence}",
            fence = ident(names::FENCE_TRIGGER),
            table = t.quoted()
        )
    };
    each(s, "putting the fence on", todo, create, bound, progress).await
}

pub(super) async fn disarm_all(
    s: &mut Session,
    bound: Duration,
    progress: &mut (dyn FnMut(ArmProgress) + Send),
) -> Result<()> {
    let todo = armed(s).await?;
    let remove =
        |t: &TableName| format!("DROP TRIGGER IF EXISTS {} ON {}", ident(names::FENCE_TRIGGER), t.quoted());
    each(s, "taking the fence from", todo, remove, bound, progress).await
}

/// Runs a statement per table, many per transaction; when one table is busy, table by table, and the busy ones again
/// until `bound`.
async fn each(
    s: &mut Session,
    doing: &str,
    tables: Vec<TableName>,
    sql: impl Fn(&TableName) -> String,
    bound: Duration,
    progress: &mut (dyn FnMut(ArmProgress) + Send),
) -> Result<()> {
    let start = Instant::now();
    let total = tables.len();
    let mut done = 0;
    let mut busy = Vec::new();
    for batch in tables.chunks(BATCH) {
        let all: Vec<String> = batch.iter().map(&sql).collect();
        match one_transaction(s, &format!("{doing} {} tables", batch.len()), &all.join("; ")).await? {
            Outcome::Done => done += batch.len(),
            Outcome::Busy | Outcome::Gone => busy.extend(batch.iter()),
        }
        progress(ArmProgress { done, total });
    }
    while !busy.is_empty() {
        let mut left = Vec::new();
        for table in busy {
            match one_transaction(s, &format!("{doing} {table}"), &sql(table)).await? {
                // A table that was dropped meanwhile needs nothing any more.
                Outcome::Done | Outcome::Gone => done += 1,
                Outcome::Busy => left.push(table),
            }
            progress(ArmProgress { done, total });
        }
        busy = left;
        let Some(first) = busy.first() else { break };
        if start.elapsed() > bound {
            return Err(Error::NotReached {
                place: Box::new(s.place(doing)),
                condition: "the tables' locks".to_owned(),
                bound,
                last: format!("{done} of {total} done; {first} and {} more are in use", busy.len() - 1),
            });
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    Ok(())
}

enum Outcome {
    Done,
    Busy,
    Gone,
}

async fn one_transaction(s: &mut Session, doing: &str, sql: &str) -> Result<Outcome> {
    let tx = s.begin(doing).await?;
    let limit = LOCK_TIMEOUT.as_millis();
    match tx.batch(doing, &format!("SET LOCAL lock_timeout = {limit}; {sql}")).await {
        Ok(()) => tx.commit(doing).await.map(|()| Outcome::Done),
        Err(e) if e.is(&SqlState::LOCK_NOT_AVAILABLE) || e.is(&SqlState::T_R_DEADLOCK_DETECTED) => {
            tx.rollback(doing).await.map(|()| Outcome::Busy)
        }
        Err(e) if e.is(&SqlState::UNDEFINED_TABLE) => tx.rollback(doing).await.map(|()| Outcome::Gone),
        Err(e) => Err(e),
    }
}
