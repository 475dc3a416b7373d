//! Owns the last conversation with an upstream that a session leaves. Refuses to know where the session goes.
//!
//! A server has signalled its listeners before it answers who notified, and a signalled listener sends what it was notified of
//! before its own next `ReadyForQuery` (PostgreSQL `src/backend/commands/async.c`, "ProcessNotifyInterrupt"). So when nobody
//! commits there any more, one round trip brings all that there is.

use std::time::Duration;

use bytes::BytesMut;
use pgteal_wire::message::frontend::put_sync;

use super::ask;
use crate::upstream::{TalkError, Upstream};

/// Parts. What the server still had to say to the client goes to `aside`.
///
/// # Errors
/// When the connection is lost, or silent for twice the limit.
pub(super) async fn part(
    upstream: &mut Upstream,
    limit: Duration,
    aside: &mut BytesMut,
) -> Result<(), TalkError> {
    let mut out = BytesMut::new();
    put_sync(&mut out);
    ask::unit(upstream, &out, limit, aside).await.map(drop)
}
