//! Owns a question of our own on an upstream where nothing else is under way: it is sent, waited for, and called off when it
//! takes too long; and the transaction of our own that a client's settings have no say in. Refuses to know what is asked.

use std::time::Duration;

use bytes::BytesMut;
use pgteal_wire::message::frontend::{put_bind, put_execute, put_parse, put_query, put_sync};
use pgteal_wire::message::tag::front;
use pgteal_wire::message::{put, put_cstr};
use tokio::io::AsyncWriteExt;

use crate::upstream::{Answer, TalkError, Upstream};

/// The name of our statement. It is gone before a client could list it.
const NAME: &[u8] = b"pgteal/look";
/// Begins a transaction that is not what the client's defaults make of one: serializable and deferrable, it would wait for
/// others.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY NOT DEFERRABLE";
/// Ends a transaction with the session (PostgreSQL 17 and later).
const FATAL: &str = "transaction_timeout";
/// End a statement; errors are `query_canceled` and `lock_not_available`.
const SHORT: [&str; 2] = ["statement_timeout", "lock_timeout"];

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
    let way = upstream.cancel.clone();
    let answer = upstream.read_unit(aside);
    tokio::pin!(answer);
    if let Ok(answer) = tokio::time::timeout(limit, &mut answer).await {
        return answer;
    }
    if let Some(way) = way {
        let _ = tokio::time::timeout(limit, way.send()).await;
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

/// The client's timeouts that this server has, to be silenced in a transaction of our own: the one that ends the session,
/// and those that end a statement as well.
pub(super) fn timeouts(upstream: &Upstream, short: bool) -> impl Iterator<Item = &'static str> {
    let version = upstream.params.get("server_version").unwrap_or_default();
    let major = version.split(|byte| !byte.is_ascii_digit()).next().unwrap_or_default();
    let major: u32 = std::str::from_utf8(major).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    (major >= 17).then_some(FATAL).into_iter().chain(SHORT.into_iter().filter(move |_| short))
}

/// Statements in a transaction of our own, whatever the client's timeouts and defaults; nothing is said of it to the server's
/// log or to us but errors. A transaction that failed is left open.
pub(super) fn transaction(upstream: &Upstream, statements: impl IntoIterator<Item = String>) -> BytesMut {
    let mut out = BytesMut::new();
    say(&mut out, BEGIN);
    for timeout in timeouts(upstream, true) {
        say(&mut out, &format!("SET LOCAL {timeout} = 0"));
    }
    say(&mut out, "SET LOCAL client_min_messages = error");
    for sql in statements {
        say(&mut out, &sql);
    }
    say(&mut out, "COMMIT");
    put_sync(&mut out);
    out
}

/// Closes what an error may have left open.
pub(super) fn close(out: &mut BytesMut) {
    put(out, front::CLOSE, |out| {
        out.extend_from_slice(b"S");
        put_cstr(out, NAME);
    });
}
