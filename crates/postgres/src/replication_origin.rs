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
