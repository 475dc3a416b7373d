//! Owns how a new proxy process takes the listening sockets from one that serves, so that no connection is refused: by
//! descriptors, over a Unix socket beside the state file. Refuses to move sessions: those of the old process stay there until
//! their clients leave, or its time is over.
//!
//! The new one (`take`) asks, and the old one (`give`) lets nobody be held from then on, so that no route changes on the way.
//! It sends its listening sockets and the state file with its lock, and goes on accepting. The new one binds what else its
//! configuration says and reads the state; when it could serve it says so, and the old one stops accepting and never writes
//! the state again. Up to there whatever fails leaves the old one as it was. The two have the same sockets, so what waits in
//! a socket's queue is accepted by one of them. An old one that is told to end first brings such a conversation to its end; who
//! asks it later finds nobody, and waits for the state file's lock, which it has until it is gone.
//!
//! The sessions of the old process are behind no gate of the new one. So while a predecessor lives nobody is held at the new
//! one, and no switchover begins; and a predecessor whose successor dies ends, marked (`draining`) for the next one, which cannot
//! ask it. Cancel requests come to the new one; those with keys it has not given go to the old.

mod draining;
mod give;
mod retire;
mod succeed;
mod take;
mod talk;

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgteal_wire::cancel::CancelKey;
use tokio::sync::{oneshot, watch};

pub(crate) use draining::wait as wait_for_draining;
pub(crate) use give::{listen, offer, tell};
pub(crate) use take::{Asked, Inheritance, follow};
pub(crate) use talk::Name;
use talk::{Ask, Ear, Voice};

/// How long a predecessor may take to have a cancel request delivered.
const TO_CANCEL: Duration = Duration::from_secs(6);

/// Why a process could not take over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeoverError {
    /// The process that serves goes on as before.
    #[error("the proxy that serves refuses a takeover: {0}")]
    Refused(String),
    /// It does not answer.
    #[error("the proxy that serves does not answer at {path} within {limit:?}")]
    Silent {
        /// The socket of takeovers.
        path: PathBuf,
        /// How long it was waited for.
        limit: Duration,
    },
    /// It was about to end, or cannot be asked, and has not ended.
    #[error(
        "the proxy that has the state file {path} cannot be taken over from, and has not ended within {limit:?}"
    )]
    NotEnded {
        /// The state file.
        path: PathBuf,
        /// How long it was waited for.
        limit: Duration,
    },
    /// What it says makes no sense, or it went away.
    #[error("the conversation at {path} with the proxy that serves broke off: {reason}")]
    Broken {
        /// The socket of takeovers.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

/// The socket by which a proxy with this state file can be taken over.
pub(crate) fn socket_beside(state_file: &Path) -> PathBuf {
    let mut path = state_file.as_os_str().to_owned();
    path.push(".takeover");
    path.into()
}

/// What one process has to do with others before and after it.
#[derive(Debug)]
pub(crate) struct Takeover {
    /// The listening sockets, for who takes over.
    sockets: Mutex<Vec<(Name, OwnedFd)>>,
    predecessor: Mutex<Option<Arc<Predecessor>>>,
    /// Another process has them by now, and may be about to serve.
    lent: AtomicBool,
    successor: Mutex<Option<Successor>>,
    /// Another process serves.
    over: watch::Sender<bool>,
    /// It did, and is gone.
    alone: watch::Sender<bool>,
}

impl Default for Takeover {
    fn default() -> Self {
        let (over, alone) = (watch::Sender::new(false), watch::Sender::new(false));
        Self {
            sockets: Mutex::default(),
            predecessor: Mutex::default(),
            lent: AtomicBool::new(false),
            successor: Mutex::default(),
            over,
            alone,
        }
    }
}

impl Takeover {
    /// Remembers a listening socket.
    pub(crate) fn listens(&self, name: Name, socket: OwnedFd) {
        self.sockets().push((name, socket));
    }

    /// Forgets them, so that they close.
    pub(crate) fn listens_no_more(&self) {
        self.sockets().clear();
    }

    /// Whether another process has our sockets, so that their files are not ours to remove.
    pub(crate) fn are_lent(&self) -> bool {
        self.lent.load(SeqCst)
    }

    fn lend(&self, lent: bool) {
        self.lent.store(lent, SeqCst);
    }

    fn succeeded_by(&self, successor: Successor) {
        *self.successor.lock().unwrap_or_else(PoisonError::into_inner) = Some(successor);
    }

    /// Who serves now, for whoever speaks with it from then on.
    pub(crate) fn successor(&self) -> Option<Successor> {
        self.successor.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ready when another process serves.
    pub(crate) async fn over(&self) {
        // Never an error: we have the sender.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// Ready when the process that served after this one is gone.
    async fn alone(&self) {
        let _ = self.alone.subscribe().wait_for(|alone| *alone).await;
    }

    /// The process before, as long as it lives.
    pub(crate) fn predecessor(&self) -> Option<Arc<Predecessor>> {
        self.predecessor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_predecessor(&self, predecessor: Option<Arc<Predecessor>>) {
        *self.predecessor.lock().unwrap_or_else(PoisonError::into_inner) = predecessor;
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<(Name, OwnedFd)>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process after.
#[derive(Debug)]
pub(crate) struct Successor {
    voice: Arc<Voice>,
    ear: Ear,
    /// Until this process is gone, others can see that it has sessions.
    _mark: File,
}

/// The process before, which still has sessions.
#[derive(Debug)]
pub(crate) struct Predecessor {
    voice: Arc<Voice>,
    next: AtomicU64,
    /// Cancel requests that it has not answered.
    asked: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

impl Predecessor {
    fn new(voice: Arc<Voice>) -> Arc<Self> {
        Arc::new(Self { voice, next: AtomicU64::new(1), asked: Mutex::default() })
    }

    /// Has it pass a cancel request on; answers when that is done.
    pub(crate) async fn cancel(&self, key: &CancelKey) {
        let id = self.next.fetch_add(1, Relaxed);
        let (done, answered) = oneshot::channel();
        self.asked().insert(id, done);
        let ask = Ask::Cancel { id, pid: key.pid(), secret: key.secret().to_vec() };
        let arrived = async {
            self.voice.say(&ask).await?;
            let _ = answered.await;
            Ok::<_, std::io::Error>(())
        };
        match tokio::time::timeout(TO_CANCEL, arrived).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "cancel request not passed on to the predecessor"),
            Err(_) => tracing::warn!("cancel request not delivered by the predecessor within {TO_CANCEL:?}"),
        }
        self.asked().remove(&id);
    }

    fn done(&self, id: u64) {
        if let Some(done) = self.asked().remove(&id) {
            let _ = done.send(());
        }
    }

    /// It is gone: nobody waits for it any longer.
    fn gone(&self) {
        self.asked().clear();
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<()>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
