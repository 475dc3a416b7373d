//! What must be remembered on the server itself: table `pgteal.state`. Knows keys and epochs, not the meaning of values.

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::session::Session;

/// One remembered value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// The epoch of whoever wrote it.
    pub epoch: i64,
    /// The deployment.
    pub deployment: String,
}

/// Writes a value, in the transaction that is open on the session, if any. An epoch lower than one seen here is refused,
/// see [`is_stale`].
pub async fn put(s: &Session, key: &str, value: &Value, epoch: i64, deployment: &str) -> Result<()> {
    let doing = format!("remembering {key}");
    let sql = "SELECT pgteal.put_state($1, $2, $3, $4)::text";
    s.query_one(&doing, sql, &[&key, &value, &epoch, &deployment]).await?;
    Ok(())
}

/// One value.
pub async fn get(s: &Session, key: &str) -> Result<Option<Entry>> {
    let sql = "SELECT key, value, epoch, deployment FROM pgteal.state WHERE key = $1";
    let doing = format!("recalling {key}");
    let row = s.query_opt(&doing, &s.prepared(&doing, sql).await?, &[&key]).await?;
    row.map(|r| Ok(Entry { key: r.get(0)?, value: r.get(1)?, epoch: r.get(2)?, deployment: r.get(3)? }))
        .transpose()
}

/// All values, by key.
pub async fn list(s: &Session) -> Result<Vec<Entry>> {
    let sql = "SELECT key, value, epoch, deployment FROM pgteal.state ORDER BY key";
    let rows = s.query("recalling everything", sql, &[]).await?;
    rows.iter()
        .map(|r| Ok(Entry { key: r.get(0)?, value: r.get(1)?, epoch: r.get(2)?, deployment: r.get(3)? }))
        .collect()
}

/// The highest epoch seen here; 0 if nothing was written.
pub async fn highest_epoch(s: &Session) -> Result<i64> {
    let sql = "SELECT coalesce(max(epoch), 0) FROM pgteal.state";
    s.query_one("reading the highest epoch", sql, &[]).await?.get(0)
}

/// Forgets a value.
pub async fn remove(s: &Session, key: &str) -> Result<()> {
    s.execute(&format!("forgetting {key}"), "DELETE FROM pgteal.state WHERE key = $1", &[&key]).await?;
    Ok(())
}

/// Whether a write was refused because a higher epoch has been here.
pub fn is_stale(error: &Error) -> bool {
    error.sqlstate().is_some_and(|state| state.code() == "PT409")
}
