//! Owns session advisory locks: how the catalogue shows them, and how they are taken on the side that the session goes to.
//! Refuses to know when.
//!
//! Taken is without waiting, and only while clients are held and the session is at rest: what it holds on its own side then is
//! nobody else's, so on the other side only a stranger can have it, or a session that has not given back yet what it took in an
//! earlier hold.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::ask;
use crate::upstream::{Answer, TalkError, Upstream};

/// Locks of one session that are carried.
pub(super) const MOST: usize = 1024;
/// Between two tries of what somebody else has.
const AGAIN: Duration = Duration::from_millis(5);
/// How long what somebody else has is tried for.
const PATIENCE: Duration = Duration::from_millis(400);
/// How often one lock may be held, at most.
pub(super) const DEEPEST: u32 = 100_000;

/// One lock as `pg_locks` shows it (PostgreSQL documentation, "pg_locks"): how often it is held is not shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lock {
    class: u32,
    object: u32,
    /// Its key is two `int4`, not one `int8`.
    pair: bool,
    shared: bool,
}

impl Lock {
    /// Reads `classid:objid:objsubid` and a mode.
    pub(super) fn read(key: &[u8], mode: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(key).ok()?.split(':');
        let mut part = || parts.next()?.parse::<u32>().ok();
        let (class, object, kind) = (part()?, part()?, part()?);
        let shared = match mode {
            b"ShareLock" => true,
            b"ExclusiveLock" => false,
            _ => return None,
        };
        matches!(kind, 1 | 2).then_some(Self { class, object, pair: kind == 2, shared })
    }

    /// A call of one of `pg_advisory_lock`'s kin, of the kind that `verb` names (`try_advisory_lock`, say).
    fn call(&self, verb: &str) -> String {
        let shared = if self.shared { "_shared" } else { "" };
        let (class, object) = (self.class, self.object);
        let key = if self.pair {
            format!("'{}'::pg_catalog.int4, '{}'::pg_catalog.int4", class.cast_signed(), object.cast_signed())
        } else {
            let key = (u64::from(class) << 32 | u64::from(object)).cast_signed();
            format!("'{key}'::pg_catalog.int8")
        };
        format!("pg_catalog.pg_{verb}{shared}({key})")
    }

    /// Gives a lock back as often as it is held; the only value answered is how often that was.
    pub(super) fn give_back_all(&self) -> String {
        let call = self.call("advisory_unlock");
        format!(
            "WITH RECURSIVE u(n, held) AS (SELECT 1, {call} UNION ALL SELECT u.n OPERATOR(pg_catalog.+) 1, {call} FROM u \
             WHERE u.held AND u.n OPERATOR(pg_catalog.<) {DEEPEST}) SELECT pg_catalog.count(*) FROM u WHERE u.held"
        )
    }

    /// Takes a lock that is held so many times more.
    pub(super) fn take_more(&self, times: u32) -> String {
        let call = self.call("advisory_lock");
        format!(
            "SELECT pg_catalog.count({call}::pg_catalog.text) FROM pg_catalog.generate_series(1, {times})"
        )
    }
}

impl std::fmt::Display for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}{}", self.class, self.object, if self.shared { ", shared" } else { "" })
    }
}

/// Why locks are not held.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    #[error(transparent)]
    Talk(#[from] TalkError),
    /// Others have it.
    #[error("a session advisory lock that somebody else holds on the other side ({0})")]
    Taken(Lock),
    #[error("{0}")]
    Refused(String),
}

/// Brings an upstream that holds the locks `has` to holding `wants`, each once. What is not wanted is given back first.
pub(super) async fn bring(upstream: &mut Upstream, has: &[Lock], wants: &[Lock]) -> Result<(), LockError> {
    let gone: Vec<_> = has.iter().filter(|lock| !wants.contains(lock)).collect();
    if !gone.is_empty() {
        let calls = gone.into_iter().map(|lock| lock.call("advisory_unlock"));
        ask(upstream, calls).await?;
    }
    let mut missing: Vec<&Lock> = wants.iter().filter(|lock| !has.contains(lock)).collect();
    let until = tokio::time::Instant::now() + PATIENCE;
    while !missing.is_empty() {
        let answer = ask(upstream, missing.iter().map(|lock| lock.call("try_advisory_lock"))).await?;
        let mut taken = answer.rows.into_iter().map(|row| row.first() == Some(&Some(b"t".to_vec())));
        missing.retain(|_| !taken.next().unwrap_or(false));
        match missing.first() {
            Some(lock) if tokio::time::Instant::now() >= until => {
                return Err(LockError::Taken((*lock).clone()));
            }
            Some(_) => tokio::time::sleep(AGAIN).await,
            None => {}
        }
    }
    Ok(())
}

/// In a transaction of our own: these locks outlast it. One statement calls all.
async fn ask(upstream: &mut Upstream, calls: impl Iterator<Item = String>) -> Result<Answer, LockError> {
    let calls: Vec<_> = calls.map(|call| format!("({call})")).collect();
    let unit = ask::transaction(upstream, [format!("VALUES {}", calls.join(", "))]);
    upstream.stream.write_all(&unit).await.map_err(TalkError::from)?;
    upstream.stream.flush().await.map_err(TalkError::from)?;
    let mut aside = BytesMut::new();
    let answer = upstream.read_unit(&mut aside).await?;
    match answer.error {
        // The caller gives this upstream up, and with it whatever it held.
        Some(error) => Err(LockError::Refused(error)),
        None => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn keys_are_spelled_as_the_functions_take_them() {
        for (key, mode, expected) in [
            ("0:42:1", "ExclusiveLock", "pg_catalog.pg_advisory_unlock('42'::pg_catalog.int8)"),
            (
                "4294967295:4294967295:1",
                "ShareLock",
                "pg_catalog.pg_advisory_unlock_shared('-1'::pg_catalog.int8)",
            ),
            ("1:0:1", "ExclusiveLock", "pg_catalog.pg_advisory_unlock('4294967296'::pg_catalog.int8)"),
            (
                "4294967295:7:2",
                "ExclusiveLock",
                "pg_catalog.pg_advisory_unlock('-1'::pg_catalog.int4, '7'::pg_catalog.int4)",
            ),
        ] {
            assert_eq!(
                Lock::read(key.as_bytes(), mode.as_bytes()).unwrap().call("advisory_unlock"),
                expected
            );
        }
        assert!(Lock::read(b"0:42:3", b"ExclusiveLock").is_none());
        assert!(Lock::read(b"0:42:1", b"AccessShareLock").is_none());
    }
}
