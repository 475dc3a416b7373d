//! Replication origins: how far a subscription's worker has applied. Knows positions of the publisher only.

use crate::error::Result;
use crate::lsn::Lsn;
use crate::session::Session;

const OF_SUBSCRIPTION: &str = "FROM pg_subscription
    WHERE subname = $1 AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// Says, durably, that a subscription of this database has everything before `lsn`, so that its worker asks for what comes
/// after it, wherever the slot stands (START_REPLICATION begins at the greater of the two); one round trip. For a
/// subscription whose worker does not run. Nothing if there is no such subscription.
pub async fn advance(s: &Session, subscription: &str, lsn: Lsn) -> Result<()> {
    let doing = format!("advancing the replication origin of subscription {subscription}");
    // The position is in WAL at once and on disk with the next commit: that of the message.
    let sql = format!(
        "SELECT pg_replication_origin_advance('pg_' || oid, $2), pg_logical_emit_message(true, 'pgteal', 'origin')
        {OF_SUBSCRIPTION}"
    );
    s.query_opt(&doing, &s.prepared(&doing, &sql).await?, &[&subscription, &lsn]).await.map(drop)
}

/// The publisher's position after the last transaction that a subscription applied here, or what [`advance`] was last
/// told; `None` without such a subscription or position. An idle publisher's position runs ahead of it. One round trip: it
/// is asked in the pause.
pub async fn position(s: &Session, subscription: &str) -> Result<Option<Lsn>> {
    let doing = format!("reading the replication origin of subscription {subscription}");
    let sql = format!("SELECT pg_replication_origin_progress('pg_' || oid, false) {OF_SUBSCRIPTION}");
    let row = s.query_opt(&doing, &s.prepared(&doing, &sql).await?, &[&subscription]).await?;
    row.map_or(Ok(None), |row| row.get(0))
}
