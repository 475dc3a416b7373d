//! Owns the roll of connections to servers that sessions have or had: whose each is, where it goes, what it is there for.
//! Refuses to speak on any of them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pgteal_wire::cancel::CancelKey;

use crate::reads::{Berth, Replica};
use crate::route::Side;

/// What a connection is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Its session's statements go there.
    Session,
    /// Opened ahead, for a session that is on the other side.
    Ahead,
    /// Its session has left for the other side; soon to be closed.
    Left,
    /// Its client has left it, and the next one of the same kind may have it.
    Free,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) side: Side,
    pub(crate) user: Box<str>,
    pub(crate) database: Box<str>,
    /// The server process that it is connected to, if the server told.
    pub(crate) remote_pid: Option<i32>,
    pub(crate) tls: bool,
    pub(crate) since: Instant,
    /// The replica that it goes to, if it goes to one.
    pub(crate) berth: Option<Berth>,
    used_for: AtomicU8,
    /// 0: none.
    session: AtomicU64,
}

impl Line {
    pub(crate) fn used_for(&self) -> Use {
        match self.used_for.load(Relaxed) {
            0 => Use::Session,
            1 => Use::Ahead,
            2 => Use::Left,
            _ => Use::Free,
        }
    }

    /// The session whose it is or was.
    pub(crate) fn session(&self) -> Option<u64> {
        Some(self.session.load(Relaxed)).filter(|id| *id != 0)
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Roll {
    lines: Mutex<(u64, BTreeMap<u64, Arc<Line>>)>,
}

impl Roll {
    /// Puts a connection on the roll, for as long as the answer lives.
    pub(crate) fn enter(
        self: &Arc<Self>,
        side: Side,
        (user, database): (&[u8], &[u8]),
        key: Option<&CancelKey>,
        tls: bool,
        berth: Option<Berth>,
    ) -> Ticket {
        let text = |bytes| String::from_utf8_lossy(bytes).into();
        let line = Arc::new(Line {
            side,
            user: text(user),
            database: text(database),
            remote_pid: key.map(CancelKey::pid),
            tls,
            since: Instant::now(),
            berth,
            used_for: AtomicU8::new(0),
            session: AtomicU64::new(0),
        });
        let mut lines = self.lines();
        lines.0 += 1;
        let number = lines.0;
        lines.1.insert(number, Arc::clone(&line));
        Ticket { roll: Arc::clone(self), number, line }
    }

    /// Everybody, the oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Line>> {
        self.lines().1.values().cloned().collect()
    }

    fn lines(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Arc<Line>>)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place on the roll.
#[derive(Debug)]
pub(crate) struct Ticket {
    roll: Arc<Roll>,
    number: u64,
    line: Arc<Line>,
}

impl Ticket {
    /// Says what the connection is there for from now on.
    pub(crate) fn set(&self, used_for: Use) {
        self.line.used_for.store(used_for as u8, Relaxed);
    }

    /// The replica that the connection goes to, if it goes to one.
    pub(crate) fn replica(&self) -> Option<&Arc<Replica>> {
        self.line.berth.as_ref().map(Berth::replica)
    }

    /// It is no session's, until somebody takes it.
    pub(crate) fn is_free(&self) {
        self.set(Use::Free);
        self.belongs_to(0);
    }

    /// Says whose it is.
    pub(crate) fn belongs_to(&self, session: u64) {
        self.line.session.store(session, Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.roll.lines().1.remove(&self.number);
    }
}
