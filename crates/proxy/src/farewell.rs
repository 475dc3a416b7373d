//! Owns the upstreams that sessions have left for the other side, until they are closed: not in the pause, where every
//! server process that exits takes the processor from those that clients wait for, but some time after the gate has
//! opened, a few at a time. Refuses to know sessions; nobody is on these connections any more.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::gate::Gate;
use crate::roll::Use;
use crate::route::Side;
use crate::upstream::Upstream;

/// How long after the gate has opened the first is closed.
const REST: Duration = Duration::from_secs(1);
/// Between one batch and the next.
const PAUSE: Duration = Duration::from_millis(20);
/// Closed at once, when they are few.
const BATCH: usize = 2;
/// All are closed within about this many batches, however many they are.
const BATCHES: usize = 100;

/// Upstreams that were left.
#[derive(Debug)]
pub(crate) struct Farewell {
    left: Mutex<Vec<Upstream>>,
    most: usize,
    arrived: Notify,
}

impl Farewell {
    /// Keeps `most` upstreams; further ones are closed as they come.
    pub(crate) const fn new(most: usize) -> Self {
        Self { left: Mutex::new(Vec::new()), most, arrived: Notify::const_new() }
    }

    /// Takes an upstream that nobody uses any more, with no transaction open on it.
    pub(crate) fn leave(&self, upstream: Upstream) {
        upstream.ticket.set(Use::Left);
        let mut left = self.left();
        if left.len() >= self.most {
            drop(left);
            return upstream.close_later();
        }
        left.push(upstream);
        if left.len() == 1 {
            self.arrived.notify_one();
        }
    }

    /// How many are still to be closed.
    pub(crate) fn len(&self) -> usize {
        self.left().len()
    }

    /// Closes those on one side now, and answers when they are gone: their places on that server are needed.
    pub(crate) async fn make_room(&self, side: Side) {
        let on_side: Vec<_> = self.left().extract_if(.., |upstream| upstream.course.side == side).collect();
        close_all(on_side).await;
    }

    /// Closes what is left, in its time; runs as long as the proxy.
    pub(crate) async fn keep(&self, gate: &Gate) {
        loop {
            self.arrived.notified().await;
            while self.len() > 0 {
                rest(gate).await;
                self.close_some(gate).await;
            }
        }
    }

    /// Closes batch after batch until nothing is left, or the gate closes.
    async fn close_some(&self, gate: &Gate) {
        let batch = self.len().div_ceil(BATCHES).max(BATCH);
        while !gate.is_closed() {
            let some: Vec<_> = {
                let mut left = self.left();
                let count = left.len().min(batch);
                left.drain(..count).collect()
            };
            if some.is_empty() {
                return;
            }
            close_all(some).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn left(&self) -> MutexGuard<'_, Vec<Upstream>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the gate has been open for a while. A hold has its own limit, and so has this wait.
async fn rest(gate: &Gate) {
    loop {
        let opened = gate.opened();
        tokio::pin!(opened);
        opened.as_mut().enable();
        if gate.is_closed() {
            opened.await;
        }
        tokio::time::sleep(REST).await;
        if !gate.is_closed() {
            return;
        }
    }
}

/// Each close has its own bound.
pub(crate) async fn close_all(upstreams: Vec<Upstream>) {
    let mut closing: JoinSet<()> = upstreams.into_iter().map(Upstream::close).collect();
    while closing.join_next().await.is_some() {}
}
