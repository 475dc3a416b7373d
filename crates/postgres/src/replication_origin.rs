//! Replication origins: how far a subscription's worker has applied. Knows positions of the publisher only.

use crate::error::Result;
use crate::lsn::Lsn;
use crate::session::Session;

/// The publisher's position after the last transaction that a subscription applied here, as known to be on disk if
/// `flushed`. It moves only with applied transactions; an idle publisher's position runs ahead of it.
pub async fn progress(s: &Session, subscription_oid: u32, flushed: bool) -> Result<Option<Lsn>> {
    let name = format!("pg_{subscription_oid}");
    let sql = "SELECT (SELECT pg_replication_origin_progress(roname, $2) FROM pg_replication_origin WHERE roname = $1)";
    s.query_one(&format!("reading replication origin {name}"), sql, &[&name, &flushed]).await?.get(0)
}

/// Says that a subscription of this database has everything before `lsn`, so that its worker asks for what comes after
/// it, wherever the slot stands; one round trip. For a subscription whose worker does not run. In WAL, on disk with the
/// next commit. Nothing if there is no such subscription.
pub async fn advance(s: &Session, subscription: &str, lsn: Lsn) -> Result<()> {
    let doing = format!("advancing the replication origin of subscription {subscription}");
    let sql = "SELECT pg_replication_origin_advance('pg_' || oid, $2) FROM pg_subscription
        WHERE subname = $1 AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
    s.query_opt(&doing, &s.prepared(&doing, sql).await?, &[&subscription, &lsn]).await.map(drop)
}
