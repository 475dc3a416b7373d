//! Owns a question of our own on an upstream where nothing else is under way: it is sent, waited for, and called off when it
//! takes too long. Refuses to know what is asked.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pgteal_wire::message::frontend::{put_bind, put_execute, put_parse, put_query};
use pgteal_wire::message::tag::front;
use pgteal_wire::message::{put, put_cstr};
use tokio::io::AsyncWriteExt;

use crate::cancel;
use crate::upstream::{Answer, TalkError, Upstream};

/// The name of our statement. It is gone before a client could list it.
const NAME: &[u8] = b"pgteal/look";

/// Sends one simple query and reads its answer. It destroys the unnamed statement: not for upstreams that clients use.
pub(super) async fn query(
    upstream: &mut Upstream,
    sql: &str,
    limit: Duration,
    aside: &mut BytesMut,
) -> Result<Answer, TalkError> {
    let mut out = BytesMut::new();
    put_query(&mut out, sql);
    unit(upstream, &out, limit, aside).await
}

/// Sends one unit and reads its answer. When it takes longer than `limit` it is cancelled, and waited for as long again.
pub(super) async fn unit(
    upstream: &mut Upstream,
    unit: &[u8],
    limit: Duration,
    aside: &mut BytesMut,
) -> Result<Answer, TalkError> {
    upstream.stream.write_all(unit).await?;
    upstream.stream.flush().await?;
    let key = upstream.cancel.clone();
    let server = Arc::clone(&upstream.server);
    let answer = upstream.read_unit(aside);
    tokio::pin!(answer);
    if let Ok(answer) = tokio::time::timeout(limit, &mut answer).await {
        return answer;
    }
    if let Some(key) = key {
        let _ = tokio::time::timeout(limit, cancel::send(&server, &key)).await;
    }
    tokio::time::timeout(limit, answer).await.unwrap_or(Err(TalkError::Closed))
}

/// Puts a statement into a unit of the extended protocol, under a name of ours that is closed again: the client's unnamed
/// statement stays.
pub(super) fn say(out: &mut BytesMut, sql: &str) {
    put_parse(out, NAME, sql.as_bytes());
    put_bind(out, NAME, &[None::<&[u8]>; 0]);
    put_execute(out);
    close(out);
}

/// Closes what an error may have left open.
pub(super) fn close(out: &mut BytesMut) {
    put(out, front::CLOSE, |out| {
        out.extend_from_slice(b"S");
        put_cstr(out, NAME);
    });
}
