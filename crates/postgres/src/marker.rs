//! The marker: a row whose arrival on the other server proves that everything committed before it is applied there.
//! Knows one end at a time; that every table is in the stream ([`crate::copy::unapplied`]) is for the caller to know.

use std::time::Duration;

use crate::error::Result;
use crate::lsn::Lsn;
use crate::session::Session;
use crate::wait::{self, Look};

/// How often the arrival is looked for; latency is what the cutover pays.
const POLL: Duration = Duration::from_micros(300);

const WRITE: &str = "INSERT INTO pgteal.marker AS m (id, n, at) VALUES (1, 1, clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET n = m.n + 1, at = excluded.at RETURNING n";
const READ: &str = "SELECT coalesce((SELECT n FROM pgteal.marker WHERE id = 1), 0)";

/// The message is transactional: its commit flushes the log, as that of [`crate::wal::flush`].
const READ_DURABLY: &str =
    "SELECT m.n, CASE WHEN m.n >= $1 THEN pg_logical_emit_message(true, 'pgteal', 'flush') END
    FROM (SELECT coalesce((SELECT n FROM pgteal.marker WHERE id = 1), 0) AS n) m";

/// Prepares the statements, so that the first real use costs one round trip.
pub async fn warm(s: &Session) -> Result<()> {
    let doing = "preparing the marker";
    for sql in [WRITE, READ_DURABLY] {
        s.prepared(doing, sql).await?;
    }
    read(s).await.map(drop)
}

/// Commits the next marker, durably (the session has `synchronous_commit = on`, and a durable commit flushes everything
/// before it, asynchronous commits of others too), and returns its number.
pub async fn write(s: &Session) -> Result<i64> {
    let doing = "writing the marker";
    s.query_one(doing, &s.prepared(doing, WRITE).await?, &[]).await?.get(0)
}

/// The number of the last marker seen here; 0 if there was none.
pub async fn read(s: &Session) -> Result<i64> {
    let doing = "reading the marker";
    s.query_one(doing, &s.prepared(doing, READ).await?, &[]).await?.get(0)
}

/// The number of the last marker here, if it was written after the fence of this database was raised; both instants are
/// this server's clock.
pub async fn written_after_fence(s: &Session) -> Result<Option<i64>> {
    let sql = "SELECT m.n FROM pgteal.marker m, pgteal.state f WHERE m.id = 1 AND f.key = 'fence'
        AND (f.value->>'raised')::bool AND m.at > (f.value->>'at')::timestamptz";
    let doing = "looking for the marker after the fence";
    let row = s.query_opt(doing, &s.prepared(doing, sql).await?, &[]).await?;
    row.map(|r| r.get(0)).transpose()
}

/// Waits until marker `n` has been applied here. Applied is not yet durable, see [`wait_durable`].
pub async fn wait(s: &Session, n: i64, bound: Duration) -> Result<()> {
    wait::until(s, format!("marker {n} to be applied"), bound, POLL, || async {
        let seen = read(s).await?;
        Ok(if seen >= n { Look::Reached(()) } else { Look::NotYet(format!("marker {seen}")) })
    })
    .await
}

/// Waits until marker `n` has been applied here, makes all that was applied durable, and returns the position after it.
/// Both in the statement that finds the marker: applied is not yet durable, and a round trip more is paid by clients.
pub async fn wait_durable(s: &Session, n: i64, bound: Duration) -> Result<Lsn> {
    wait::until(s, format!("marker {n} to be applied"), bound, POLL, || async {
        let doing = "reading the marker";
        let row = s.query_one(doing, &s.prepared(doing, READ_DURABLY).await?, &[&n]).await?;
        let (seen, lsn): (i64, Option<Lsn>) = (row.get(0)?, row.get(1)?);
        Ok(lsn.map_or_else(|| Look::NotYet(format!("marker {seen}")), Look::Reached))
    })
    .await
}
