//! Owns a session's place: inside the gate, or before it until it opens. Refuses to know what the session has to say.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll};

use super::super::sync::{Instant, OwnedNotified};
use super::Gate;
use crate::route::Side;

/// A place inside the gate: left at the latest when the session is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
    pub(crate) inside: bool,
}

impl Pass {
    pub(crate) const fn outside(gate: Arc<Gate>) -> Self {
        Self { gate, inside: false }
    }

    /// Goes inside; `None` when the gate is closed.
    pub(crate) fn enter(&mut self) -> Option<Side> {
        let course = self.gate.enter()?;
        self.inside = true;
        Some(course.side)
    }

    pub(crate) fn leave(&mut self) {
        if std::mem::take(&mut self.inside) {
            self.gate.leave();
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A session that waits before the gate.
#[derive(Debug)]
pub(crate) struct Before {
    pub(crate) place: Waiting,
    opened: Pin<Box<OwnedNotified>>,
}

impl Before {
    /// From here on an opening wakes the session; what was closed before may have been opened meanwhile, so the gate is
    /// asked once more after this.
    pub(crate) fn new(gate: &Arc<Gate>) -> Self {
        Self { opened: next_opening(gate), place: gate.wait_here() }
    }

    /// Ready when the gate was opened since this was said last, or since the session waits. Whoever asks the gate then and finds
    /// it closed again waits for the next opening.
    pub(crate) fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        std::task::ready!(self.opened.as_mut().poll(cx));
        self.opened = next_opening(&self.place.gate);
        Poll::Ready(())
    }
}

fn next_opening(gate: &Gate) -> Pin<Box<OwnedNotified>> {
    let mut opened = Box::pin(gate.opened());
    opened.as_mut().enable();
    opened
}

impl Gate {
    /// Counts a session that waits before the gate for as long as the value lives.
    #[must_use]
    pub fn wait_here(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, SeqCst);
        Waiting { gate: Arc::clone(self), since: Instant::now(), bytes: 0 }
    }
}

/// Somebody who is counted before the gate.
#[derive(Debug)]
pub struct Waiting {
    gate: Arc<Gate>,
    /// Since when it waits.
    pub since: Instant,
    bytes: usize,
}

impl Waiting {
    /// Says how many of its client's bytes wait with it.
    pub(crate) fn keeps(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.gate.waiting_bytes.fetch_add(bytes as u64, SeqCst);
        self.gate.waiting_bytes.fetch_sub(before as u64, SeqCst);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.keeps(0);
        self.gate.waiting.fetch_sub(1, SeqCst);
    }
}
