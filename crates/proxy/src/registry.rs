//! Owns the list of sessions that are there, what each says of itself to the console, and the way to tell it something.
//! Refuses to know how a session works.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pgteal_wire::cancel::CancelKey;
use tokio::sync::mpsc;

use crate::cancel::Way;
use crate::mailbox::Mailbox;
use crate::route::{Route, Side};
use crate::session::Vocabulary;

/// What a session can be told. Each carries a sender that is used once, or dropped when the session ends first.
#[derive(Debug)]
pub(crate) enum Command {
    /// Read what the functions of your database do to sessions, on the other side if need be. The sender is dropped when
    /// that cannot be told.
    Learn { other: Side, reply: mpsc::Sender<Arc<Vocabulary>> },
    /// Open the upstream on that side, or bring the one that is there up to date. The answer carries the session's id.
    Warm { side: Side, reply: Option<mpsc::Sender<(u64, WarmAnswer)>> },
    /// Look at what you hold, when nothing runs and nobody looked since something did.
    Look { reply: mpsc::Sender<()> },
    /// Close the upstream that was opened ahead.
    Cool,
    /// The route has changed: go there.
    Turn { reply: mpsc::Sender<TurnAnswer> },
    /// Cancel the statement that is held; if it has left meanwhile, have its server cancel it. The sender is dropped when
    /// that has happened.
    Cancel { reply: Option<mpsc::Sender<()>> },
    /// End now, with this message to the client.
    End { why: String, reply: Option<mpsc::Sender<()>> },
}

/// What came of warming one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WarmAnswer {
    Ready,
    /// It holds what cannot be carried.
    Pinned,
    Failed(String),
}

/// What came of turning one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TurnAnswer {
    /// On its new upstream.
    Moved,
    /// Its new upstream is opened before its next message.
    Cold,
    /// Ended with 57P01.
    Ended,
}

/// Where a session's second upstream stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum WarmState {
    #[default]
    None,
    Opening,
    Ready,
    Failed(String),
}

/// What changes rarely, under a lock.
#[derive(Debug, Default)]
pub(crate) struct Details {
    pub(crate) side: Option<Side>,
    pub(crate) warm: WarmState,
    /// What cannot be carried, in words.
    pub(crate) pins: Vec<String>,
    /// Microseconds since the proxy's start at which that was first seen.
    pub(crate) pinned_since: u64,
    /// What the client called itself after its startup packet, as its server reports it.
    pub(crate) renamed: Option<String>,
    /// It holds session advisory locks, or has taken some on the other side: to be taken again in the hold.
    pub(crate) locks: bool,
    /// It has locks on the other side, where it is not.
    pub(crate) ghosts: bool,
    /// It must be on the other side before others are let in: it listens, or holds session advisory locks.
    pub(crate) presence: bool,
    /// Where a cancel request goes.
    pub(crate) cancel: Option<Arc<Way>>,
}

/// What sessions have done.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    /// Units answered.
    pub(crate) queries: u64,
    /// Bytes from clients.
    pub(crate) received: u64,
    /// Bytes to clients.
    pub(crate) sent: u64,
}

impl Totals {
    fn add(&mut self, entry: &Entry) {
        self.queries += entry.queries.load(Relaxed);
        self.received += entry.received.get();
        self.sent += entry.sent.get();
    }
}

/// A count that only its session adds to, which is therefore no more than an addition, and that anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    pub(crate) fn add(&self, count: usize) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count as u64), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What a switchover would find of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Movable,
    /// Inside a transaction.
    Draining,
    /// It holds what cannot be carried, as far as anybody looked.
    Pinned,
}

impl Class {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Movable => "movable",
            Self::Draining => "draining",
            Self::Pinned => "pinned",
        }
    }
}

/// One session as others see it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) application_name: String,
    /// The route that it asked for.
    pub(crate) route: Route,
    pub(crate) client_addr: String,
    /// The key the client was given; `None` when the server gave none.
    pub(crate) key: Option<CancelKey>,
    /// Microseconds since the proxy's start at which it went inside the gate; 0 outside.
    pub(crate) inside_since: AtomicU64,
    pub(crate) held: AtomicBool,
    /// Microseconds since the proxy's start at which it last began to wait before the gate.
    pub(crate) held_since: AtomicU64,
    /// Bytes of its client that wait there.
    pub(crate) held_bytes: AtomicU64,
    /// Its second upstream is behind what the session holds.
    pub(crate) stale: AtomicBool,
    pub(crate) queries: AtomicU64,
    /// Bytes from the client.
    pub(crate) received: Tally,
    /// Bytes to the client.
    pub(crate) sent: Tally,
    pub(crate) details: Mutex<Details>,
    pub(crate) mailbox: Mailbox,
}

impl Entry {
    pub(crate) fn details(&self) -> MutexGuard<'_, Details> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long it is inside, in microseconds; `None` outside.
    pub(crate) fn inside_for(&self, now: u64) -> Option<u64> {
        match self.inside_since.load(Relaxed) {
            0 => None,
            since => Some(now.saturating_sub(since)),
        }
    }

    pub(crate) fn class(&self, details: &Details, now: u64) -> Class {
        match self.inside_for(now) {
            _ if !details.pins.is_empty() => Class::Pinned,
            Some(_) => Class::Draining,
            None => Class::Movable,
        }
    }

    /// What its client calls itself now.
    pub(crate) fn shown_name(&self) -> String {
        self.details().renamed.clone().unwrap_or_else(|| self.application_name.clone())
    }

    /// Tells it something. False when its mailbox is full: it will find out by itself at its next message.
    pub(crate) fn tell(&self, command: Command) -> bool {
        // A replication stream asks no gate, so it would not find out; who is to be ended is.
        let must = matches!(command, Command::Turn { .. } | Command::End { .. });
        self.mailbox.put(command, must)
    }
}

/// All sessions, by their ids and by the process ids of their cancel keys. Those are random, so seldom more than one is the
/// same.
#[derive(Debug, Default)]
struct Entries {
    by_id: HashMap<u64, Arc<Entry>>,
    by_pid: HashMap<i32, Vec<Arc<Entry>>>,
}

/// The list of sessions.
#[derive(Debug)]
pub(crate) struct Registry {
    entries: Mutex<Entries>,
    started: Instant,
    next_id: AtomicU64,
    /// What sessions have done that are gone.
    retired: Mutex<Totals>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            entries: Mutex::default(),
            started: Instant::now(),
            next_id: AtomicU64::new(1),
            retired: Mutex::default(),
        }
    }

    /// Microseconds since the proxy's start, never 0.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    pub(crate) fn add(&self, entry: Arc<Entry>) {
        let mut entries = self.lock();
        if let Some(key) = &entry.key {
            entries.by_pid.entry(key.pid()).or_default().push(Arc::clone(&entry));
        }
        entries.by_id.insert(entry.id, entry);
    }

    pub(crate) fn remove(&self, entry: &Entry) {
        let mut entries = self.lock();
        if let Some(key) = &entry.key
            && let Some(same) = entries.by_pid.get_mut(&key.pid())
        {
            same.retain(|other| other.id != entry.id);
            if same.is_empty() {
                entries.by_pid.remove(&key.pid());
            }
        }
        if entries.by_id.remove(&entry.id).is_some() {
            self.retired.lock().unwrap_or_else(PoisonError::into_inner).add(entry);
        }
    }

    /// Everybody, by id.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        let mut all: Vec<_> = self.lock().by_id.values().cloned().collect();
        all.sort_by_key(|entry| entry.id);
        all
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().by_id.len()
    }

    /// What sessions have done since the start, those that are there and those that were.
    pub(crate) fn totals(&self) -> Totals {
        let entries = self.lock();
        let mut totals = *self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        entries.by_id.values().for_each(|entry| totals.add(entry));
        totals
    }

    /// The session that was given this key. Found by its process id, which is no secret; secrets are compared in constant time.
    pub(crate) fn by_key(&self, key: &CancelKey) -> Option<Arc<Entry>> {
        let entries = self.lock();
        let same = entries.by_pid.get(&key.pid())?;
        same.iter().find(|entry| entry.key.as_ref() == Some(key)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
