//! Owns the way of a connection from a client that has left it to where it lies for the next one: the server is asked to forget
//! what the client was.
//! Refuses to know whether the client left it in a state that can be forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pgteal_wire::message::frontend::put_query;
use tokio::io::AsyncWriteExt;

use super::Pool;
use crate::gate::Pass;
use crate::shared::Shared;
use crate::upstream::{Answer, TalkError, Upstream};

/// PgBouncer's `server_reset_query`: what a session holds, by PostgreSQL's own account of it (documentation, "DISCARD").
const RESET: &str = "DISCARD ALL";
/// How long the server may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How often it is looked whether clients are to be held: a drain does not wait longer for this.
const LOOK: Duration = Duration::from_millis(100);

/// Makes a connection new and lets it lie on its thread, off anybody's path; closes it when that cannot be. No request to
/// cancel what runs on it may begin any more.
pub(crate) fn give_back(shared: &Arc<Shared>, thread: usize, upstream: Upstream) {
    // Inside the gate, as whatever runs on a server: what is forgotten may be tables.
    let mut pass = Pass::outside(Arc::clone(&shared.gate));
    // What cancels the client's last statement, and is on its way still, would hit the next client's first one.
    let clear = upstream.cancel.as_ref().is_none_or(|way| way.is_clear());
    if !clear || pass.enter().is_none() || !shared.pool.wants(&upstream) {
        return upstream.close_later();
    }
    upstream.ticket.is_free();
    let shared = Arc::clone(shared);
    let passing = shared.pool.room.passing();
    tokio::spawn(async move {
        let left = back(&shared.pool, thread, upstream).await;
        drop(pass);
        if let Some(upstream) = left {
            upstream.close().await;
        }
        drop(passing);
    });
}

async fn back(pool: &Pool, thread: usize, mut upstream: Upstream) -> Option<Upstream> {
    if is_new(&mut upstream, pool).await { pool.put(thread, upstream) } else { Some(upstream) }
}

async fn is_new(upstream: &mut Upstream, pool: &Pool) -> bool {
    let began = Instant::now();
    let answer = reset(upstream);
    tokio::pin!(answer);
    let answered = loop {
        if let Ok(answered) = tokio::time::timeout(LOOK, &mut answer).await {
            break answered;
        }
        if pool.gate.is_closed() || began.elapsed() >= LIMIT {
            return false;
        }
    };
    match answered {
        // A ReadyForQuery without its command tag answers something else, and the answer to this is unread.
        Ok(Answer { error: None, tag, .. }) => tag == RESET.as_bytes(),
        Ok(Answer { error: Some(error), .. }) => {
            tracing::debug!(error, "a connection is not used again");
            false
        }
        Err(error) => {
            tracing::debug!(%error, "a connection is not used again");
            false
        }
    }
}

async fn reset(upstream: &mut Upstream) -> Result<Answer, TalkError> {
    let mut out = BytesMut::new();
    put_query(&mut out, RESET);
    upstream.stream.write_all(&out).await?;
    upstream.stream.flush().await?;
    // Settings are noted; what else the server says is for a client that is gone.
    upstream.read_unit(&mut BytesMut::new()).await
}
