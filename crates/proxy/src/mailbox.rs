//! Owns what a session was told and has not read yet: a few commands, and whom to wake for them. To look whether there
//! is one costs the session a load. Refuses to know what commands mean.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::registry::Command;

/// Commands that may wait.
const MOST: usize = 16;
/// And so many more that must not be lost.
const MORE: usize = 16;

/// The mailbox of one session.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    /// There is a command, or there was one until just now.
    full: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    commands: VecDeque<Command>,
    waker: Option<Waker>,
    closed: bool,
}

impl Mailbox {
    /// Puts a command into it; false when it is full, or when nobody reads it any more. There is more room for what `must`
    /// come in: others cannot fill that up.
    pub(crate) fn put(&self, command: Command, must: bool) -> bool {
        let mut inner = self.lock();
        let room = if must { MOST + MORE } else { MOST };
        if inner.closed || inner.commands.len() >= room {
            return false;
        }
        inner.commands.push_back(command);
        self.full.store(true, SeqCst);
        let waker = inner.waker.clone();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// The oldest command.
    pub(crate) fn take(&self) -> Option<Command> {
        if !self.full.load(SeqCst) {
            return None;
        }
        let mut inner = self.lock();
        let command = inner.commands.pop_front();
        if inner.commands.is_empty() {
            inner.commands = VecDeque::new();
            self.full.store(false, SeqCst);
        }
        command
    }

    /// Wakes this task from now on, at every command. To be said before the first [`Mailbox::take`] that is relied on.
    pub(crate) fn wake(&self, waker: &Waker) {
        self.lock().waker = Some(waker.clone());
    }

    /// Nobody reads it any more: what is in it is dropped, and who waits for an answer learns of it.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        *inner = Inner { closed: true, ..Inner::default() };
        self.full.store(false, SeqCst);
    }

    /// Whether nobody reads it any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn commands_come_out_in_order_and_wake_each_time() {
        let (mailbox, woken) = (Mailbox::default(), Arc::new(Counting(AtomicUsize::new(0))));
        assert!(mailbox.put(Command::Cool, false), "before anybody listens");
        mailbox.wake(&Waker::from(Arc::clone(&woken)));
        assert!(matches!(mailbox.take(), Some(Command::Cool)));
        assert!(mailbox.take().is_none());
        for n in 0..MOST {
            let reply = None;
            assert!(mailbox.put(Command::End { why: n.to_string(), reply }, false));
        }
        assert!(!mailbox.put(Command::Cool, false), "no more than {MOST}");
        assert!(mailbox.put(Command::Cool, true), "others do not take its place");
        assert_eq!(woken.0.load(SeqCst), MOST + 1);
        for n in 0..MOST {
            assert!(matches!(mailbox.take(), Some(Command::End { why, .. }) if why == n.to_string()));
        }
        assert!(matches!(mailbox.take(), Some(Command::Cool)));
        assert!(mailbox.take().is_none());
    }

    #[test]
    fn who_waits_for_an_answer_learns_that_nobody_reads() {
        let mailbox = Mailbox::default();
        let (reply, mut answer) = tokio::sync::mpsc::channel(1);
        assert!(mailbox.put(Command::Turn { reply }, true));
        assert!(!mailbox.is_closed());
        mailbox.close();
        assert!(mailbox.is_closed() && mailbox.take().is_none());
        assert_eq!(answer.try_recv(), Err(tokio::sync::mpsc::error::TryRecvError::Disconnected));
        assert!(!mailbox.put(Command::Cool, false));
    }
}
