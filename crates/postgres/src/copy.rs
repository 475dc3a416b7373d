//! How the initial sync of a subscription stands, table by table. Knows the subscriber's side only.

use serde::Serialize;

use crate::catalog::TableName;
use crate::error::Result;
use crate::session::Session;

/// The state of one table in a subscription (PostgreSQL docs, "pg_subscription_rel", srsubstate).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// `i`: not begun.
    Initial,
    /// `d`: rows are being copied.
    Copying,
    /// `f`: rows are copied, the copy is not yet joined to the stream.
    Copied,
    /// `s`: joined, the stream has not passed the copy's position yet.
    Synced,
    /// `r`: applied by the stream.
    Ready,
}

/// One table of a subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableSync {
    /// The table.
    pub table: TableName,
    /// How far it is.
    pub state: SyncState,
    /// Bytes of COPY text received so far, while copying.
    pub copied_bytes: Option<i64>,
    /// Rows received so far, while copying.
    pub copied_rows: Option<i64>,
    /// Size of the table here, in bytes (heap with TOAST).
    pub table_bytes: i64,
}

/// The tables of a subscription with their progress, by name. Ours (marker, state) are left out.
pub async fn progress(s: &Session, subscription: &str) -> Result<Vec<TableSync>> {
    let sql = "SELECT n.nspname::text, c.relname::text, r.srsubstate::text, p.bytes_processed, p.tuples_processed,
        pg_table_size(c.oid)
        FROM pg_subscription_rel r JOIN pg_subscription u ON u.oid = r.srsubid JOIN pg_class c ON c.oid = r.srrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_stat_progress_copy p ON p.relid = c.oid AND p.datname = current_database()
          AND p.command = 'COPY FROM'
        WHERE u.subname = $1 AND u.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND n.nspname <> 'pgteal' ORDER BY 1, 2";
    let doing = "reading the progress of the initial sync";
    let rows = s.query(doing, sql, &[&subscription]).await?;
    rows.iter()
        .map(|row| {
            let state: String = row.get(2)?;
            Ok(TableSync {
                table: TableName { schema: row.get(0)?, name: row.get(1)? },
                state: match state.as_str() {
                    "i" => SyncState::Initial,
                    "d" => SyncState::Copying,
                    "f" => SyncState::Copied,
                    "s" => SyncState::Synced,
                    "r" => SyncState::Ready,
                    other => return Err(s.unexpected(doing, format!("srsubstate {other}"))),
                },
                copied_bytes: row.get(3)?,
                copied_rows: row.get(4)?,
                table_bytes: row.get(5)?,
            })
        })
        .collect()
}

/// What a subscription does not apply although its marker arrives and its positions look fine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unapplied {
    /// Tables of the subscription that are not [`SyncState::Ready`], our own included.
    pub not_ready: Vec<TableName>,
    /// Logged tables that the subscription does not know.
    pub unknown: Vec<TableName>,
}

impl Unapplied {
    /// Whether every logged table is applied by the stream.
    pub fn is_empty(&self) -> bool {
        self.not_ready.is_empty() && self.unknown.is_empty()
    }
}

/// The tables whose changes a subscription would not apply now. Must be empty before a marker proves anything.
pub async fn unapplied(s: &Session, subscription: &str) -> Result<Unapplied> {
    let sql = "SELECT n.nspname::text, c.relname::text, r.srsubstate IS NULL
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN (SELECT r.srrelid, r.srsubstate FROM pg_subscription_rel r JOIN pg_subscription u ON u.oid = r.srsubid
          WHERE u.subname = $1 AND u.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())) r
          ON r.srrelid = c.oid
        WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
          AND n.nspname !~ '^pg_(toast|temp)' AND r.srsubstate IS DISTINCT FROM 'r' ORDER BY 1, 2";
    let doing = "looking for tables that the subscription does not apply";
    let mut found = Unapplied::default();
    for row in s.query(doing, &s.prepared(doing, sql).await?, &[&subscription]).await? {
        let table = TableName { schema: row.get(0)?, name: row.get(1)? };
        if row.get(2)? { found.unknown.push(table) } else { found.not_ready.push(table) }
    }
    Ok(found)
}
