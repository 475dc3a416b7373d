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
use pgteal_wire::frame;
use pgteal_wire::message::frontend::put_sync;
use pgteal_wire::message::tag::back;

use super::ask;
use super::locks::Lock;
use crate::upstream::{Params, TalkError, Upstream};

/// The longest message that is waited for here; `NOTIFY` takes 8 kB.
const LONGEST: usize = 64 * 1024;

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
    let out = if locks.is_empty() {
        let mut out = BytesMut::new();
        put_sync(&mut out);
        out
    } else {
        ask::transaction(upstream, locks.iter().map(Lock::give_back_all))
    };
    let answer = ask::unit(upstream, &out, limit, aside).await?;
    let count = |row: Vec<Option<Vec<u8>>>| {
        let value = row.into_iter().next().flatten().unwrap_or_default();
        std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    Ok(answer.rows.into_iter().map(count).collect())
}

/// What is left of an upstream's words when the last conversation is over: whole messages that answer nobody. The beginning of
/// one more, or why its server ends it now, is nothing to a client that is about to hear another server.
pub(super) fn last_words(early: &mut BytesMut, params: &mut Params) -> BytesMut {
    let mut words = BytesMut::new();
    while let Ok(Some(frame)) = frame::take(early, LONGEST) {
        if frame.tag == back::PARAMETER_STATUS {
            params.take(frame.body());
        }
        if matches!(frame.tag, back::NOTICE | back::NOTIFICATION | back::PARAMETER_STATUS) {
            words.extend_from_slice(&frame.whole);
        }
    }
    early.clear();
    words
}

/// Holds locks that are held once as often as they were.
///
/// # Errors
/// When the connection is lost or silent, or the server refuses.
pub(super) async fn deepen(
    upstream: &mut Upstream,
    deep: &[(Lock, u32)],
    limit: Duration,
) -> Result<(), TalkError> {
    let more = deep.iter().map(|(lock, count)| lock.take_more(count - 1));
    let out = ask::transaction(upstream, more);
    let mut aside = BytesMut::new();
    let answer = ask::unit(upstream, &out, limit, &mut aside).await?;
    // Notifications of the new side.
    let early = std::mem::take(&mut upstream.early);
    upstream.early = aside;
    upstream.early.unsplit(early);
    answer.error.map_or(Ok(()), |error| Err(TalkError::Io(std::io::Error::other(error))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use pgteal_wire::message::put;
    use pgteal_wire::message::report::Report;

    use super::*;

    #[test]
    fn nothing_of_the_old_server_stands_half_said_before_the_new_one() {
        let (mut early, mut params) = (BytesMut::new(), Params::default());
        put(&mut early, back::NOTIFICATION, |out| out.extend_from_slice(b"\0\0\0\x01room\0one\0"));
        put(&mut early, back::PARAMETER_STATUS, |out| out.extend_from_slice(b"TimeZone\0UTC\0"));
        let answers_nobody = early.clone();
        Report::fatal("57P01", "terminating connection due to administrator command").encode(&mut early);
        early.extend_from_slice(b"A\0\0\x1f\xffhalf");
        assert_eq!(last_words(&mut early, &mut params), answers_nobody);
        assert!(early.is_empty());
        assert_eq!(params.get("TimeZone"), Some(&b"UTC"[..]));
    }
}
