//! Owns the rehearsal: a server process is made to parse and plan what its session is used to say, so that its caches
//! (tables, types, operators, statistics) are warm before the first client waits for it.
//! Refuses to execute what clients say: Parse, Bind, Sync, and no Execute (PostgreSQL documentation, "Extended Query"). Planning may
//! evaluate functions marked stable or immutable, as any planning does; nothing volatile runs, no trigger fires, no row
//! is read or written, and every lock is let go at its Sync.
//!
//! What a server says to a rehearsal means nothing. Each is bounded, stops when clients are held, and leaves nothing.

use std::time::Duration;

use bytes::BytesMut;
use pgteal_wire::message::frontend::{put_bind, put_query, put_sync};
use pgteal_wire::message::tag::front;
use pgteal_wire::message::{put, put_cstr};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::repertoire::Line;
use crate::gate::Gate;
use crate::upstream::{TalkError, Upstream};

/// One statement; shorter than PostgreSQL's `deadlock_timeout` (1 s), so that a rehearsal in a lock's queue never
/// makes another transaction its victim.
const ONE: Duration = Duration::from_millis(250);
/// All statements of one connection.
const ALL: Duration = Duration::from_secs(1);
/// How often the gate is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(5);
/// How long a server may take to give up what it was told to cancel.
const CANCELLED: Duration = Duration::from_secs(1);
/// An empty block loads the library of PL/pgSQL, which nearly every server process needs at its first write: the fence's
/// trigger function alone is on every table.
const PROLOGUE: &str = "DO 'BEGIN END'";
/// Parameters of one statement.
const PARAMETERS: usize = 256;

/// Rehearses, and answers how many lines had their turn. Nothing is rehearsed while the gate is closed: then clients
/// wait. `unnamed` is the Parse message of the unnamed statement that the session needs, if any: rehearsals go through
/// the unnamed statement, which is put back in the end.
///
/// # Errors
/// The connection is lost, or cannot be trusted to be idle.
pub(super) async fn rehearse(
    upstream: &mut Upstream,
    gate: &Gate,
    lines: &[Line],
    unnamed: Option<&[u8]>,
) -> Result<usize, TalkError> {
    let end = Instant::now() + ALL;
    let mut done = 0;
    for line in lines {
        if gate.is_closed() || Instant::now() >= end {
            break;
        }
        done += 1;
        if !one(upstream, gate, line, end.min(Instant::now() + ONE)).await? {
            break;
        }
    }
    if done > 0 {
        let mut out = BytesMut::new();
        put(&mut out, front::CLOSE, |out| out.extend_from_slice(b"S\0"));
        out.extend_from_slice(unnamed.unwrap_or_default());
        put_sync(&mut out);
        upstream.stream.write_all(&out).await?;
        upstream.stream.flush().await?;
        tokio::time::timeout(CANCELLED, upstream.read_unit(&mut BytesMut::new()))
            .await
            .map_err(|_| TalkError::Closed)??;
    }
    Ok(done)
}

/// What comes before the first line on a connection; not again on the same one.
///
/// # Errors
/// As [`rehearse`].
pub(super) async fn prologue(upstream: &mut Upstream, gate: &Gate) -> Result<(), TalkError> {
    let mut out = BytesMut::new();
    put_query(&mut out, PROLOGUE);
    said(upstream, gate, &out, Instant::now() + ONE).await.map(drop)
}

/// Rehearses one line. False when it had to be cancelled: what stood in its way may stand in the next one's.
async fn one(upstream: &mut Upstream, gate: &Gate, line: &Line, end: Instant) -> Result<bool, TalkError> {
    let mut out = BytesMut::new();
    put(&mut out, front::PARSE, |out| {
        put_cstr(out, b"");
        out.extend_from_slice(&line.parse);
    });
    let nulls = vec![None::<&[u8]>; line.parameters().min(PARAMETERS)];
    put_bind(&mut out, b"", &nulls);
    put_sync(&mut out);
    said(upstream, gate, &out, end).await
}

/// Says it, and waits for the answer, whatever it is. False when it had to be cancelled.
async fn said(upstream: &mut Upstream, gate: &Gate, out: &[u8], end: Instant) -> Result<bool, TalkError> {
    upstream.stream.write_all(out).await?;
    upstream.stream.flush().await?;
    let way = upstream.cancel.clone();
    let mut aside = BytesMut::new();
    let answer = upstream.read_unit(&mut aside);
    tokio::pin!(answer);
    loop {
        if let Ok(answer) = tokio::time::timeout(LOOK, &mut answer).await {
            return answer.map(|_| true);
        }
        if gate.is_closed() || Instant::now() >= end {
            break;
        }
    }
    if let Some(way) = way {
        let _ = tokio::time::timeout(CANCELLED, way.send()).await;
    }
    match tokio::time::timeout(CANCELLED, answer).await {
        Ok(answer) => answer.map(|_| false),
        Err(_) => Err(TalkError::Closed),
    }
}
