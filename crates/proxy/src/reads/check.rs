//! Owns the checks of replicas and their primaries: one connection of the proxy's service role to each, asked again and
//! again how far it is. Refuses to judge the answers.
//!
//! The functions that are called every role may call (PostgreSQL documentation, "System Administration Functions").

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pgteal_wire::frame;
use pgteal_wire::message::frontend::put_query;
use pgteal_wire::message::report::Fields;
use pgteal_wire::message::rows::parse_data_row;
use pgteal_wire::message::tag::back;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Position, Replicas, Seen};
use crate::auth::{ServiceLogin, Target, Upstream};
use crate::route::Side;
use crate::shared::Shared;

/// How long one check may take, its login included.
const LIMIT: Duration = Duration::from_secs(2);
/// Longest message read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// What is flushed is what is sent to replicas.
const QUESTION: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
    CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
        ELSE pg_catalog.pg_current_wal_flush_lsn() END, \
    (SELECT system_identifier FROM pg_catalog.pg_control_system()), \
    pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() \
        OPERATOR(pg_catalog.-) pg_catalog.pg_last_xact_replay_timestamp())";

/// What one server says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    in_recovery: bool,
    position: Option<Position>,
    system: Option<u64>,
    /// The age of the last transaction that it replayed, by its own clock.
    oldest: Option<Duration>,
}

/// One server, and the connection to it while it works.
struct Watched {
    target: Arc<Target>,
    service: Arc<ServiceLogin>,
    connection: Option<Upstream>,
}

/// Checks every replica, and the primary of every side that has some; runs as long as the proxy.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    for side in [Side::Blue, Side::Green] {
        let replicas = shared.reads.of(side);
        let Some(primary) = replicas.primary.as_ref().filter(|_| !replicas.all().is_empty()) else {
            continue;
        };
        let Some(service) = shared.login.service(side) else { continue };
        let watched = |target: &Arc<Target>| Watched {
            target: Arc::clone(target),
            service: Arc::clone(service),
            connection: None,
        };
        // By where the primary is replicas are judged.
        let (heard, _) = watch::channel(false);
        for number in 0..replicas.all().len() {
            if let Some(replica) = replicas.all().get(number) {
                let (watched, heard) = (watched(&replica.target), heard.subscribe());
                tasks.spawn(watch_replica(Arc::clone(&shared), side, number, watched, heard));
            }
        }
        tasks.spawn(watch_primary(Arc::clone(&shared), side, watched(primary), heard));
    }
    while tasks.join_next().await.is_some() {}
}

async fn watch_primary(shared: Arc<Shared>, side: Side, mut watched: Watched, heard: watch::Sender<bool>) {
    let replicas = shared.reads.of(side);
    loop {
        match watched.ask().await {
            Ok(answer) => replicas.primary_is_at(answer.position, answer.system),
            // Replicas serve without it, and are as far behind as it was last seen.
            Err(error) => tracing::debug!(server = watched.target.shown(), %error, "not asked where it is"),
        }
        heard.send_replace(true);
        tokio::time::sleep(shared.reads.config.check_interval()).await;
    }
}

async fn watch_replica(
    shared: Arc<Shared>,
    side: Side,
    number: usize,
    mut watched: Watched,
    mut heard: watch::Receiver<bool>,
) {
    let _ = heard.wait_for(|heard| *heard).await;
    let (replicas, config): (&Replicas, _) = (shared.reads.of(side), &shared.reads.config);
    let Some(replica) = replicas.all().get(number) else { return };
    loop {
        match watched.ask().await {
            Ok(answer) => {
                let seen = Seen {
                    in_recovery: answer.in_recovery,
                    is_foreign: replicas.is_foreign(answer.system),
                    lag: answer.position.and_then(|position| replicas.lag(position, answer.oldest)),
                };
                replica.answered(seen, config.max_lag());
            }
            Err(error) => replica.failed(error.to_string()),
        }
        let wait = {
            let mut health = super::lock(&replica.health);
            health.checked();
            health.wait(config.check_interval())
        };
        replicas.checked.send_replace(());
        let _ = tokio::time::timeout(wait, replica.suspected.notified()).await;
    }
}

impl Watched {
    /// Asks, on the connection that is there or on a new one.
    async fn ask(&mut self) -> io::Result<Answer> {
        // Taken out while in use: one that is given up halfway is not used again.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let settings = [("application_name", "pgteal/reads")];
                self.service.log_in(&self.target, &settings, LIMIT).await.map_err(io::Error::other)?
            }
        };
        let answer = tokio::time::timeout(LIMIT, converse(&mut connection)).await;
        let answer =
            answer.map_err(|_| io::Error::other(format!("no answer within {} ms", LIMIT.as_millis())))??;
        self.connection = Some(connection);
        Ok(answer)
    }
}

/// Which cluster a side's login leads to, by the identity that initdb gave it, and whether that server is a standby; asked on a
/// connection of its own.
pub(crate) async fn identify(service: &ServiceLogin, limit: Duration) -> io::Result<(Option<u64>, bool)> {
    let asked = async {
        let settings = [("application_name", "pgteal/reads")];
        let login = service.log_in(service.server(), &settings, limit).await;
        converse(&mut login.map_err(io::Error::other)?).await
    };
    let answer = tokio::time::timeout(limit, asked).await;
    let answer =
        answer.map_err(|_| io::Error::other(format!("no answer within {} ms", limit.as_millis())))??;
    Ok((answer.system, answer.in_recovery))
}

async fn converse(connection: &mut Upstream) -> io::Result<Answer> {
    let mut out = BytesMut::new();
    put_query(&mut out, QUESTION);
    connection.stream.write_all(&out).await?;
    connection.stream.flush().await?;
    let mut answer = Answer::default();
    loop {
        let message = frame::take(&mut connection.leftover, MAX_ANSWER).map_err(io::Error::other)?;
        let Some(message) = message else {
            if connection.stream.read_buf(&mut connection.leftover).await? == 0 {
                return Err(io::Error::other("the server closed the connection"));
            }
            continue;
        };
        match message.tag {
            back::DATA_ROW => answer = read(message.body())?,
            back::ERROR => {
                let fields = Fields::parse(message.body()).map_err(io::Error::other)?;
                return Err(io::Error::other(format!("{} {}", fields.sqlstate(), fields.message())));
            }
            back::READY_FOR_QUERY => return Ok(answer),
            _ => {}
        }
    }
}

fn read(row: &[u8]) -> io::Result<Answer> {
    let columns = parse_data_row(row).map_err(io::Error::other)?;
    let text = |at: usize| columns.get(at).copied().flatten().and_then(|text| std::str::from_utf8(text).ok());
    Ok(Answer {
        in_recovery: text(0) == Some("t"),
        position: text(1).and_then(Position::parse),
        system: text(2).and_then(|text| text.parse().ok()),
        // Clocks that differ may have it in the future.
        oldest: text(3)
            .and_then(|text| text.parse().ok())
            .map(|seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default()),
    })
}
