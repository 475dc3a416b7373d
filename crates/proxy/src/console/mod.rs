//! Owns the admin console: a conversation in the PostgreSQL protocol, simple queries only, one file per command.
//! Refuses to know sessions from the inside: it reads what they publish and writes to their mailboxes.

mod admit;
mod answer;
mod ask;
mod command;
mod cool;
mod drain;
mod hold;
mod look;
mod pace;
mod release;
mod reload;
mod repoint;
mod round;
mod settle;
mod show_config;
mod show_held;
mod show_routes;
mod show_sessions;
mod show_state;
mod show_stats;
mod show_upstreams;
mod warm;
mod warm_words;

use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;

use bytes::BytesMut;
use pgteal_wire::cancel::CancelKey;
use pgteal_wire::frame::{self, Frame};
use pgteal_wire::message::authentication::Authentication;
use pgteal_wire::message::backend::{
    ParameterStatus, TransactionStatus, put_backend_key_data, put_ready_for_query,
};
use pgteal_wire::message::report::Report;
use pgteal_wire::message::rows::put_empty_query;
use pgteal_wire::message::tag::front;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::registry::WarmState;
use crate::shared::Shared;
use crate::stream::Stream;

use admit::Visitor;
pub(crate) use admit::admit;
use answer::{Answer, Refusal};
use command::Command;
pub(crate) use show_routes::counted;

/// Longest command, in bytes.
const MAX_COMMAND: usize = 16 * 1024;

/// Serves one console connection to its end.
async fn serve(shared: Arc<Shared>, mut stream: Stream, visitor: Visitor) {
    if let Err(error) = converse(&shared, &mut stream, &visitor).await {
        tracing::debug!(%error, "console connection ended");
    }
    let _ = stream.shutdown().await;
}

async fn converse(shared: &Arc<Shared>, stream: &mut Stream, visitor: &Visitor) -> std::io::Result<()> {
    stream.write_all(&welcome()).await?;
    stream.flush().await?;
    let mut inbox = BytesMut::new();
    let mut skipping = false;
    loop {
        let frame = match frame::take(&mut inbox, MAX_COMMAND) {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                let count = tokio::select! {
                    count = stream.read_buf(&mut inbox) => count?,
                    // Who comes again finds the process that serves.
                    () = shared.takeover.over() => return elsewhere(stream).await,
                };
                if count == 0 {
                    return Ok(());
                }
                continue;
            }
            Err(error) => {
                let mut out = BytesMut::new();
                Report::fatal("08P01", error.to_string()).encode(&mut out);
                return stream.write_all(&out).await;
            }
        };
        let mut out = BytesMut::new();
        match frame.tag {
            front::TERMINATE => return Ok(()),
            front::QUERY => {
                skipping = false;
                query(shared, visitor, &frame, &mut out).await;
            }
            front::SYNC => {
                skipping = false;
                put_ready_for_query(&mut out, TransactionStatus::Idle);
            }
            front::FLUSH => {}
            _ if skipping => {}
            _ => {
                skipping = true;
                let report = Report::error("0A000", "the console takes simple queries only");
                report
                    .hint("With a driver, use its simple query call; psql does by itself.")
                    .encode(&mut out);
            }
        }
        stream.write_all(&out).await?;
        stream.flush().await?;
    }
}

async fn elsewhere(stream: &mut Stream) -> std::io::Result<()> {
    let mut out = BytesMut::new();
    Report::fatal("57P01", "another proxy process has taken over from this one").encode(&mut out);
    stream.write_all(&out).await
}

fn welcome() -> BytesMut {
    let mut out = BytesMut::new();
    Authentication::Ok.encode(&mut out);
    let params = [
        ("server_version", concat!(env!("CARGO_PKG_VERSION"), "/pgteal")),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ];
    for (name, value) in params {
        ParameterStatus { name: name.as_bytes(), value: value.as_bytes() }.encode(&mut out);
    }
    if let Ok(key) = CancelKey::mint(4) {
        put_backend_key_data(&mut out, &key);
    }
    put_ready_for_query(&mut out, TransactionStatus::Idle);
    out
}

async fn query(shared: &Arc<Shared>, visitor: &Visitor, frame: &Frame, out: &mut BytesMut) {
    let text = String::from_utf8_lossy(frame.body());
    let text = text.trim_end_matches('\0');
    match command::parse(text) {
        Ok(None) => put_empty_query(out),
        Ok(Some(command)) => {
            let tag = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
            let done = match visitor.may(&command) {
                Ok(()) => execute(shared, visitor, command).await,
                Err(refusal) => Err(refusal),
            };
            match done {
                Ok(answer) => answer.encode(tag.trim_end_matches(';'), out),
                Err(refusal) => refusal.report().encode(out),
            }
        }
        Err(complaint) => Refusal::syntax(complaint).report().encode(out),
    }
    put_ready_for_query(out, TransactionStatus::Idle);
}

async fn execute(shared: &Arc<Shared>, visitor: &Visitor, command: Command) -> Result<Answer, Refusal> {
    match command {
        Command::ShowVersion => {
            Ok(Answer::one([("version", format!("pgteal-proxy {}", env!("CARGO_PKG_VERSION")))]))
        }
        Command::ShowHelp => {
            let mut table = Answer::table(&["command", "meaning"]);
            for (form, meaning) in command::FORMS {
                table.row(vec![form.into(), meaning.into()]);
            }
            Ok(table)
        }
        Command::ShowConfig => Ok(show_config::show_config(shared)),
        Command::ShowState => Ok(show_state::show_state(shared, visitor)),
        Command::ShowSessions => Ok(show_sessions::show_sessions(shared)),
        Command::ShowRoutes => Ok(show_routes::show_routes(shared)),
        Command::ShowUpstreams => Ok(show_upstreams::show_upstreams(shared)),
        Command::ShowHeld => Ok(show_held::show_held(shared)),
        Command::ShowStats => Ok(show_stats::show_stats(shared)),
        Command::Reload => reload::reload(shared).await,
        Command::ResetStats => {
            shared.stats.reset(shared.registry.totals());
            Ok(Answer::one([("reset", "ok".into())]))
        }
        Command::Look { limit } => look::look(shared, limit).await,
        Command::Ask { side, limit } => ask::ask(shared, side, limit).await,
        Command::Warm { side, epoch, limit } => warm::warm(shared, side, epoch, limit).await,
        Command::Cool { epoch } => cool::cool(shared, epoch),
        Command::Hold { epoch, limit, run } => hold::hold(shared, epoch, limit, run),
        Command::Drain { epoch, budget, terminate } => drain::drain(shared, epoch, budget, terminate).await,
        Command::Settle { epoch, limit } => settle::settle(shared, epoch, limit).await,
        Command::Repoint { side, epoch } => repoint::repoint(shared, side, epoch).await,
        Command::Release { epoch } => release::release(shared, epoch),
    }
}

/// Sessions by what stands between them and the other side.
#[derive(Debug, Default, Clone, Copy)]
struct Census {
    sessions: usize,
    warm: usize,
    stale: usize,
    pinned: usize,
    failed: usize,
    /// They only need time, and a repoint now would end them.
    unready: usize,
    longest_us: u64,
}

fn census(shared: &Shared) -> Census {
    let now = shared.registry.now();
    let mut census = Census::default();
    for entry in shared.registry.all() {
        let stale = entry.stale.load(Acquire);
        let details = entry.details();
        let ready = details.warm == WarmState::Ready;
        census.sessions += 1;
        census.warm += usize::from(ready && !stale);
        census.stale += usize::from(stale);
        census.pinned += usize::from(!details.pins.is_empty());
        census.failed += usize::from(matches!(details.warm, WarmState::Failed(_)));
        census.unready += usize::from(stale && details.presence);
        census.longest_us = census.longest_us.max(entry.inside_for(now).unwrap_or(0));
    }
    census
}
