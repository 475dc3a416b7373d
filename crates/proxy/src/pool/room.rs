//! Owns the room that is made on a server that has none: connections that nobody uses give their places to who needs them.
//! Refuses to know logins.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use super::Pool;
use crate::farewell;

/// How long those are waited for that are just being made new.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Room {
    /// Held by who makes some.
    making: Mutex<()>,
    /// How often it was begun or ended.
    made: AtomicU64,
    /// Connections between their client and where they lie.
    passing: Arc<watch::Sender<usize>>,
}

/// One connection that has left its client, and does not lie anywhere yet.
#[derive(Debug)]
pub(super) struct Passing(Arc<watch::Sender<usize>>);

impl Room {
    pub(super) fn passing(&self) -> Passing {
        self.passing.send_modify(|count| *count += 1);
        Passing(Arc::clone(&self.passing))
    }

    /// Waits for those on their way, when there are any.
    async fn arrived(&self) -> bool {
        let mut passing = self.passing.subscribe();
        let any = *passing.borrow_and_update() > 0;
        if any {
            let _ = tokio::time::timeout(PATIENCE, passing.wait_for(|count| *count == 0)).await;
        }
        any
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Pool {
    /// How often room was made, to be asked before a login.
    pub(crate) fn room_made(&self) -> u64 {
        self.room.made.load(SeqCst)
    }

    /// Closes what nobody uses, of one user where the want is that user's own. Answers whether a login that began after
    /// `seen` and was refused may find a place now: also when somebody else has made room meanwhile.
    pub(crate) async fn make_room(&self, user: Option<&[u8]>, seen: u64) -> bool {
        let _making = self.room.making.lock().await;
        if self.room_made() != seen {
            return true;
        }
        let waited = self.room.arrived().await;
        let all = self.empty(user);
        if all.is_empty() && !waited {
            return false;
        }
        self.room.made.fetch_add(1, SeqCst);
        farewell::close_all(all).await;
        self.room.made.fetch_add(1, SeqCst);
        true
    }
}
