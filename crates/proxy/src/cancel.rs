//! Owns cancel requests: from the key a client was given to the server that runs its query now, or to the session that holds
//! it.
//! Refuses to answer: the protocol has no answer, whether the key fits or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use pgteal_wire::cancel::CancelKey;
use pgteal_wire::startup::encode_cancel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::auth::{Target, TargetError};
use crate::registry::{Command, Entry};
use crate::shared::Shared;
use crate::stats::Stats;

/// How long one cancel request may take, in whole.
const LIMIT: Duration = Duration::from_secs(5);

/// Where requests for what runs on one connection of a server go, and how many are on their way there.
#[derive(Debug)]
pub(crate) struct Way {
    server: Arc<Target>,
    key: CancelKey,
    under_way: AtomicUsize,
}

impl Way {
    pub(crate) fn new(server: &Arc<Target>, key: CancelKey) -> Arc<Self> {
        Arc::new(Self { server: Arc::clone(server), key, under_way: AtomicUsize::new(0) })
    }

    /// A request is on its way from now on, until its arrival is known.
    fn begin(self: &Arc<Self>) -> Request {
        self.under_way.fetch_add(1, SeqCst);
        Request(Arc::clone(self))
    }

    /// Whether none is on its way: what runs on the connection from now on is hit by none that was asked for before.
    pub(crate) fn is_clear(&self) -> bool {
        self.under_way.load(SeqCst) == 0
    }

    /// Sends a request to the server and waits until the server has closed the connection: it has then sent the signal.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub(crate) async fn send(self: &Arc<Self>) -> Result<(), TargetError> {
        self.begin().send().await
    }
}

/// A request on its way. One that is given up may have been sent, and arrive whenever the server comes to it: it is under
/// way as long as the connection lives.
#[derive(Debug)]
struct Request(Arc<Way>);

impl Request {
    async fn send(self) -> Result<(), TargetError> {
        let Way { server, key, under_way } = &*self.0;
        let mut stream = server.connect().await?.stream;
        let failed = |source| TargetError::Connect { address: server.shown(), source };
        stream.write_all(&encode_cancel(key)).await.map_err(failed)?;
        stream.flush().await.map_err(failed)?;
        // Reset or end: both mean that it was read.
        let _ = stream.read(&mut [0]).await;
        under_way.fetch_sub(1, SeqCst);
        Ok(())
    }
}

/// Passes a client's request on.
pub(crate) async fn pass_on(shared: &Shared, key: &CancelKey) {
    Stats::count(&shared.stats.cancels);
    let Some(entry) = shared.registry.by_key(key) else {
        if let Some(predecessor) = shared.takeover.predecessor() {
            return predecessor.cancel(key).await;
        }
        tracing::debug!(pid = key.pid(), "cancel request with a key of nobody");
        return;
    };
    // A statement that is held, or whose upstream is not open yet, no server knows: the session itself answers.
    // So it is with one that is held again as soon as its server has refused it.
    let waits = entry.held.load(Relaxed) || shared.gate.is_at_risk() || entry.details().cancel.is_none();
    let (reply, mut arrived) = mpsc::channel(1);
    if waits && entry.tell(Command::Cancel { reply: Some(reply) }) {
        // The client may say its next statement as soon as the connection is closed; a request that is still on its way then
        // would be for that one.
        let _ = tokio::time::timeout(LIMIT, arrived.recv()).await;
        return;
    }
    to_server(entry).await;
}

/// Asks the server that the session is on.
pub(crate) async fn to_server(entry: Arc<Entry>) {
    // Under the lock, so that a session that ends either sees it or has taken the way from here before.
    let request = entry.details().cancel.as_ref().map(Way::begin);
    let Some(request) = request else { return };
    match tokio::time::timeout(LIMIT, request.send()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(session = entry.id, %error, "cancel request not delivered"),
        Err(_) => tracing::warn!(session = entry.id, "cancel request not delivered within {LIMIT:?}"),
    }
}
