//! Owns the last conversation with an upstream that a session leaves. Refuses to know where the session goes.
//!
//! A server has signalled its listeners before it answers who notified, and a signalled listener sends what it was notified of
//! before its own next `ReadyForQuery` (PostgreSQL `src/backend/commands/async.c`, "ProcessNotifyInterrupt"). So when nobody
//! commits there any more, one round trip brings all that there is.
//!
//! How often a session advisory lock is held no catalogue shows: it is counted by giving it back, which only may be done where the
//! session does not come back to.

use std::time::Duration;

use bytes::BytesMut;
use pgteal_wire::message::frontend::{put_query, put_sync};

use super::ask;
use super::locks::Lock;
use crate::upstream::{TalkError, Upstream};

/// Parts. What the server still had to say to the client goes to `aside`; answers how often each lock was held.
///
/// # Errors
/// When the connection is lost, or silent for twice the limit.
pub(super) async fn part(
    upstream: &mut Upstream,
    locks: &[Lock],
    limit: Duration,
    aside: &mut BytesMut,
) -> Result<Vec<u32>, TalkError> {
    let mut out = BytesMut::new();
    if locks.is_empty() {
        put_sync(&mut out);
    } else {
        // The last try of each finds nothing to give back, which is worth a warning to its server.
        let mut sql = String::from("SET client_min_messages = error; SET statement_timeout = 0");
        for lock in locks {
            sql.push_str("; ");
            sql.push_str(&lock.give_back_all());
        }
        put_query(&mut out, &sql);
    }
    let answer = ask::unit(upstream, &out, limit, aside).await?;
    let count = |row: Vec<Option<Vec<u8>>>| {
        let value = row.into_iter().next().flatten().unwrap_or_default();
        std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    Ok(answer.rows.into_iter().map(count).collect())
}

/// Holds locks that are held once as often as they were.
///
/// # Errors
/// When the connection is lost or silent, or the server refuses.
pub(super) async fn deepen(
    upstream: &mut Upstream,
    locks: &[(Lock, u32)],
    limit: Duration,
) -> Result<(), TalkError> {
    let mut out = BytesMut::new();
    // Not as a simple query, which would take the client's unnamed statement away.
    ask::say(&mut out, "BEGIN");
    ask::say(&mut out, "SET LOCAL statement_timeout = 0");
    ask::say(&mut out, "SET LOCAL lock_timeout = 0");
    for (lock, count) in locks {
        ask::say(&mut out, &lock.take_more(count - 1));
    }
    ask::say(&mut out, "COMMIT");
    put_sync(&mut out);
    let mut aside = BytesMut::new();
    let answer = ask::unit(upstream, &out, limit, &mut aside).await?;
    // Notifications of the new side.
    let early = std::mem::take(&mut upstream.early);
    upstream.early = aside;
    upstream.early.unsplit(early);
    answer.error.map_or(Ok(()), |error| Err(TalkError::Io(std::io::Error::other(error))))
}
