//! The write-ahead log's positions, and two ways to push it on. Knows no replication object.

use std::time::Duration;

use serde::Serialize;

use crate::error::Result;
use crate::lsn::Lsn;
use crate::session::Session;

/// How far the log has been written (PostgreSQL docs, "Backup Control Functions").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WalPositions {
    /// End of what was inserted into the buffers.
    pub insert: Lsn,
    /// End of what was handed to the operating system.
    pub write: Lsn,
    /// End of what is on disk.
    pub flush: Lsn,
}

/// All three positions. Fails on a standby (55000).
pub async fn positions(s: &Session) -> Result<WalPositions> {
    let doing = "reading the WAL position";
    let sql = "SELECT pg_current_wal_insert_lsn(), pg_current_wal_lsn(), pg_current_wal_flush_lsn()";
    let row = s.query_one(doing, &s.prepared(doing, sql).await?, &[]).await?;
    Ok(WalPositions { insert: row.get(0)?, write: row.get(1)?, flush: row.get(2)? })
}

/// The insert position: no change that was committed before this call lies behind it.
pub async fn insert_lsn(s: &Session) -> Result<Lsn> {
    Ok(positions(s).await?.insert)
}

/// Writes a transactional message and so makes everything before it durable, also what an apply worker committed
/// asynchronously. Returns the position after it. (A commit that wrote no WAL would flush nothing.)
pub async fn flush(s: &Session) -> Result<Lsn> {
    let doing = "flushing the WAL";
    let sql = "SELECT pg_logical_emit_message(true, 'pgteal', 'flush')";
    s.query_one(doing, &s.prepared(doing, sql).await?, &[]).await?.get(0)
}

/// Ends the current WAL segment (22 ms were seen; [`flush`] is the quick way to durability).
pub async fn switch(s: &Session) -> Result<Lsn> {
    s.query_one("switching the WAL segment", "SELECT pg_switch_wal()", &[]).await?.get(0)
}

/// Whether the server is a standby.
pub async fn is_in_recovery(s: &Session) -> Result<bool> {
    s.query_one("asking whether the server is in recovery", "SELECT pg_is_in_recovery()", &[]).await?.get(0)
}

/// The identity that initdb gave the cluster: the same in all its physical copies, different in every other cluster.
pub async fn system_identifier(s: &Session) -> Result<u64> {
    let sql = "SELECT system_identifier FROM pg_control_system()";
    let id: i64 = s.query_one("reading the system identifier", sql, &[]).await?.get(0)?;
    Ok(id.cast_unsigned())
}

/// Bytes of WAL written per second, measured over `during`.
pub async fn rate(s: &Session, during: Duration) -> Result<u64> {
    let before = insert_lsn(s).await?;
    tokio::time::sleep(during).await;
    let written = insert_lsn(s).await?.bytes_since(before);
    Ok(written.saturating_mul(1000) / u64::try_from(during.as_millis().max(1)).unwrap_or(u64::MAX))
}
