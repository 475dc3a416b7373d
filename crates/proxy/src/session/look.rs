//! Owns the conversation of a look at a session, on the client's own upstream and harmless to it: one unit of the extended
//! protocol, through a statement of our own that is closed again, so that the client's unnamed statement stays; and in a
//! transaction of our own, so that what the client set for its transactions (serializable and deferrable, say) does not
//! count. Refuses to know what the query asks.
//!
//! Timeouts of the client's own could end the look, and `transaction_timeout` the client with it. They are shown first and
//! then silenced for the one transaction: `transaction_timeout` always, the others once one of them was too short, because
//! of a silenced setting nobody can say any more whether the session itself set it.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use pgteal_wire::message::frontend::put_sync;

use super::ask;
use super::observe::{self, Row};
use crate::upstream::{TalkError, Upstream};

/// What `pg_stat_activity` shows last of an idle session that was looked at.
const COMMIT: &str = "COMMIT /* pgteal looked at this session */";

/// What a look brought.
#[derive(Debug)]
pub(super) enum Looked {
    /// The rows, and the settings that were silenced with the values that they had.
    Rows(Vec<Row>, Vec<(&'static str, Vec<u8>)>),
    /// The server would say so again: the session's role may not ask, say.
    Never(String),
    /// Another time it may.
    NotNow(String),
}

/// Looks. `names` are possible names of custom settings; `hurried` says, and notes, that the client's own timeouts are too
/// short for a look.
///
/// # Errors
/// When the connection is lost.
pub(super) async fn look(
    upstream: &mut Upstream,
    names: &[&str],
    hurried: &mut bool,
    limit: Duration,
    aside: &mut BytesMut,
) -> Result<Looked, TalkError> {
    let began = Instant::now();
    loop {
        let silenced: Vec<_> = ask::timeouts(upstream, *hurried).collect();
        let answer = ask::unit(upstream, &unit(names, &silenced), limit, aside).await?;
        let Some(error) = answer.error else {
            let mut shown = silenced.into_iter();
            let mut rows = Vec::with_capacity(answer.rows.len());
            let mut values = Vec::new();
            for row in answer.rows {
                match <[_; 3]>::try_from(row) {
                    Ok([Some(kind), Some(name), value]) => rows.push((kind, name, value)),
                    Ok(_) => {}
                    Err(row) => values.extend(shown.next().zip(row.into_iter().next().flatten())),
                }
            }
            return Ok(Looked::Rows(rows, values));
        };
        ask::unit(upstream, &ended(answer.in_failed_block), limit, aside).await?;
        let in_time = began.elapsed() < limit;
        if matches!(answer.sqlstate.as_str(), "57014" | "55P03") && in_time && !*hurried {
            *hurried = true;
            continue;
        }
        // Rolled back, out of resources, not in the right state, an operator's or the system's doing, an internal error.
        let passes =
            ["40", "53", "55", "57", "58", "XX"].iter().any(|class| answer.sqlstate.starts_with(class));
        return Ok(if passes { Looked::NotNow(error) } else { Looked::Never(error) });
    }
}

fn unit(names: &[&str], silenced: &[&str]) -> BytesMut {
    let mut out = BytesMut::new();
    ask::say(&mut out, ask::BEGIN);
    for setting in silenced {
        ask::say(&mut out, &format!("SHOW {setting}"));
        ask::say(&mut out, &format!("SET LOCAL {setting} = 0"));
    }
    ask::say(&mut out, &observe::query(names, silenced));
    ask::say(&mut out, COMMIT);
    put_sync(&mut out);
    out
}

/// What is left of a unit that failed is taken away.
fn ended(in_failed_block: bool) -> BytesMut {
    let mut out = BytesMut::new();
    ask::close(&mut out);
    if in_failed_block {
        ask::say(&mut out, "ROLLBACK");
    }
    put_sync(&mut out);
    out
}
