//! Owns the server connections that lie idle between two clients: who may have one, how many there are, how long they are
//! kept. Each thread of sessions has its own, so that a connection lives and dies on one.
//! Refuses to know how a connection is opened, and what clients do with it.
//!
//! What comes here was asked to `DISCARD ALL` before (`reset`), and what leaves is alive. A hold ends the life of all there are,
//! also of those that clients have: none of before a hold comes here after it, so none is ever of another side or turn than
//! the route, and a server that is left finds no old sessions.

mod kind;
mod reset;
mod room;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::PoolConfig;
use crate::gate::{Course, Gate};
use crate::roll::Use;
use crate::upstream::Upstream;

pub(crate) use kind::Kind;
use kind::Proof;
pub(crate) use reset::give_back;
use room::Room;

/// How often what has lain too long, or has died, is looked for.
const SWEEP: Duration = Duration::from_millis(500);

/// Where a connection lies when its client has left it: on everything that a client opens for itself.
#[derive(Debug)]
pub(crate) struct Home {
    kind: Kind,
    opened: Instant,
    /// The holds that there were when it was opened.
    holds: u64,
}

#[derive(Debug)]
struct Lying {
    upstream: Upstream,
    since: Instant,
}

/// Connections of one kind; the one that came last goes first.
#[derive(Debug)]
struct Shelf {
    user: Arc<[u8]>,
    proof: Proof,
    lying: Vec<Lying>,
}

#[derive(Debug, Default)]
struct Shelves(Mutex<HashMap<Arc<[u8]>, Shelf>>);

impl Shelves {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<[u8]>, Shelf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that lie idle, thread by thread.
#[derive(Debug)]
pub(crate) struct Pool {
    shelves: Box<[Shelves]>,
    gate: Arc<Gate>,
    /// Of one kind on one thread, and of all kinds.
    most: usize,
    most_in_all: usize,
    idle_timeout: Duration,
    lifetime: Duration,
    holds: AtomicU64,
    lying: AtomicUsize,
    taken: AtomicU64,
    room: Room,
}

impl Pool {
    pub(crate) fn new(config: &PoolConfig, threads: usize, gate: &Arc<Gate>) -> Self {
        Self {
            shelves: (0..threads).map(|_| Shelves::default()).collect(),
            gate: Arc::clone(gate),
            most: config.default_pool_size.div_ceil(threads.max(1)),
            most_in_all: config.max_idle_connections,
            idle_timeout: config.idle_timeout(),
            lifetime: config.lifetime(),
            holds: AtomicU64::new(0),
            lying: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            room: Room::default(),
        }
    }

    /// The home of a connection that is about to be opened; `None` when connections are used once.
    pub(crate) fn home(&self, kind: Kind) -> Option<Box<Home>> {
        let holds = self.holds.load(SeqCst);
        let home = || Box::new(Home { kind, opened: Instant::now(), holds });
        let keeps = !self.idle_timeout.is_zero() && self.most > 0 && self.most_in_all > 0;
        keeps.then(home)
    }

    /// One that lies idle on a thread and is alive. The caller is inside the gate, on this course.
    pub(crate) async fn take(&self, thread: usize, kind: &Kind, course: Course) -> Option<Upstream> {
        loop {
            let Lying { mut upstream, since } = self.pop(thread, kind)?;
            let fresh = since.elapsed() < self.idle_timeout && self.is_young(&upstream);
            if fresh && upstream.course == course && upstream.is_quiet().await {
                self.taken.fetch_add(1, Relaxed);
                upstream.ticket.set(Use::Session);
                return Some(upstream);
            }
            upstream.close_later();
        }
    }

    fn pop(&self, thread: usize, kind: &Kind) -> Option<Lying> {
        let mut shelves = self.shelves.get(thread)?.lock();
        let shelf = shelves.get_mut(&kind.startup)?;
        let found = if shelf.proof == kind.proof { shelf.lying.pop() } else { None };
        if found.is_none() || shelf.lying.is_empty() {
            // What is left was opened for a proof that does not hold any longer.
            let rest = shelves.remove(&kind.startup).map(|shelf| shelf.lying).unwrap_or_default();
            drop(shelves);
            self.close(rest);
        }
        self.lying.fetch_sub(usize::from(found.is_some()), SeqCst);
        found
    }

    /// Whether a connection that its client leaves may come here, once it is made new.
    pub(crate) fn wants(&self, upstream: &Upstream) -> bool {
        self.is_young(upstream) && upstream.course == self.gate.course() && self.len() < self.most_in_all
    }

    /// Takes one that nobody has, and gives it back when it may not lie here or when there is no room.
    fn put(&self, thread: usize, upstream: Upstream) -> Option<Upstream> {
        // Sessions that begin under the fence are read-only for as long as they live.
        let writes = upstream.params.get("default_transaction_read_only") == Some(b"off");
        let kind = upstream.home.as_ref().map(|home| home.kind.clone());
        let (Some(kind), Some(shelves), true) = (kind, self.shelves.get(thread), writes) else {
            return Some(upstream);
        };
        let mut shelves = shelves.lock();
        // Under the lock: a hold closes the gate first, and then takes what lies here.
        if self.gate.is_closed() || !self.wants(&upstream) {
            return Some(upstream);
        }
        let Kind { user, startup, proof } = kind;
        let shelf = shelves.entry(startup).or_insert(Shelf { user, proof, lying: Vec::new() });
        if shelf.proof != proof || shelf.lying.len() >= self.most {
            return Some(upstream);
        }
        shelf.lying.push(Lying { upstream, since: Instant::now() });
        self.lying.fetch_add(1, SeqCst);
        None
    }

    fn is_young(&self, upstream: &Upstream) -> bool {
        let holds = self.holds.load(SeqCst);
        let home = upstream.home.as_ref();
        home.is_some_and(|home| home.holds == holds && home.opened.elapsed() < self.lifetime)
    }

    /// The server does not take this user's logins: what was opened by them is closed.
    pub(crate) fn refused(&self, user: &[u8]) {
        self.empty(Some(user)).into_iter().for_each(Upstream::close_later);
    }

    /// Clients are held, have been sent to the other side, or certificates are others: nothing of before is used again, also
    /// not what clients have now. Answers what lay here, which is the caller's to close.
    pub(crate) fn hold(&self) -> Vec<Upstream> {
        self.holds.fetch_add(1, SeqCst);
        self.empty(None)
    }

    /// What lies here, of one user or of all.
    fn empty(&self, user: Option<&[u8]>) -> Vec<Upstream> {
        let mut all = Vec::new();
        for shelves in &self.shelves {
            let mut shelves = shelves.lock();
            let theirs = shelves.extract_if(|_, shelf| user.is_none_or(|user| *shelf.user == *user));
            all.extend(theirs.flat_map(|(_, shelf)| shelf.lying));
        }
        self.lying.fetch_sub(all.len(), SeqCst);
        all.into_iter().map(|lying| lying.upstream).collect()
    }

    /// How many lie idle.
    pub(crate) fn len(&self) -> usize {
        self.lying.load(SeqCst)
    }

    /// How many were taken since the start.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    fn close(&self, lying: Vec<Lying>) {
        self.lying.fetch_sub(lying.len(), SeqCst);
        lying.into_iter().for_each(|lying| lying.upstream.close_later());
    }

    /// Closes those that have lain too long, or have died; runs as long as the proxy.
    pub(crate) async fn keep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            if self.len() > 0 {
                self.shelves.iter().for_each(|shelves| self.sweep(shelves));
            }
        }
    }

    fn sweep(&self, shelves: &Shelves) {
        let mut gone = Vec::new();
        shelves.lock().retain(|_, shelf| {
            gone.extend(shelf.lying.extract_if(.., |lying| {
                lying.since.elapsed() >= self.idle_timeout
                    || !self.is_young(&lying.upstream)
                    || lying.upstream.is_lost()
            }));
            !shelf.lying.is_empty()
        });
        self.close(gone);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use pgteal_wire::startup::{ProtocolVersion, StartupMessage};

    use super::*;
    use crate::auth::Credentials;
    use crate::route::Route;
    use crate::session::Origin;

    #[test]
    fn where_none_may_lie_none_has_a_home() {
        let startup = StartupMessage::new(ProtocolVersion::V3_0, [("user", "app")]);
        let kind =
            Kind::of(&Origin { startup, credentials: Credentials::None, route: Route::Write }).unwrap();
        let none = |change: fn(&mut PoolConfig)| {
            let mut config = PoolConfig::default();
            change(&mut config);
            Pool::new(&config, 2, &Arc::new(Gate::new(crate::route::Side::Blue, 0)))
                .home(kind.clone())
                .is_none()
        };
        assert!(!none(|_| ()));
        assert!(none(|config| config.default_pool_size = 0));
        assert!(none(|config| config.max_idle_connections = 0));
        assert!(none(|config| config.server_idle_timeout = 0.0));
    }
}
