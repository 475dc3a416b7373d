//! Owns cancel requests: from the key a client was given to the server that runs its query now, or to the session that holds
//! it.
//! Refuses to answer: the protocol has no answer, whether the key fits or not.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pgteal_wire::cancel::CancelKey;
use pgteal_wire::startup::encode_cancel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::auth::{Target, TargetError};
use crate::registry::{Command, Entry};
use crate::shared::Shared;
use crate::stats::Stats;

/// How long one cancel request may take, in whole.
const LIMIT: Duration = Duration::from_secs(5);

/// Passes a client's request on.
pub(crate) async fn pass_on(shared: &Shared, key: &CancelKey) {
    Stats::count(&shared.stats.cancels);
    let Some(entry) = shared.registry.by_key(key) else {
        tracing::debug!(pid = key.pid(), "cancel request with a key of nobody");
        return;
    };
    // A statement that is held, or whose upstream is not open yet, no server knows: the session itself answers.
    let waits = entry.held.load(Relaxed) || entry.details().cancel.is_none();
    if waits && entry.tell(Command::Cancel) {
        return;
    }
    to_server(entry).await;
}

/// Asks the server that the session is on.
pub(crate) async fn to_server(entry: Arc<Entry>) {
    let target = entry.details().cancel.clone();
    let Some((server, key)) = target else { return };
    match tokio::time::timeout(LIMIT, send(&server, &key)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(session = entry.id, %error, "cancel request not delivered"),
        Err(_) => tracing::warn!(session = entry.id, "cancel request not delivered within {LIMIT:?}"),
    }
}

/// Sends a request to a server and waits until the server has closed the connection: it has then sent the signal.
///
/// # Errors
/// When the server cannot be reached.
pub(crate) async fn send(server: &Target, key: &CancelKey) -> Result<(), TargetError> {
    let mut stream = server.connect().await?.stream;
    let failed = |source| TargetError::Connect { address: server.shown(), source };
    stream.write_all(&encode_cancel(key)).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    // Reset or end: both mean that it was read.
    let _ = stream.read(&mut [0]).await;
    Ok(())
}
