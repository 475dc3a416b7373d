//! Owns the opening of upstreams for one client: the first, a second one ahead on the other side, and the refreshing of
//! a second one. Refuses to know when.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use pgteal_wire::message::report::Report;
use pgteal_wire::startup::StartupMessage;

use super::Origin;
use super::locks::LockError;
use super::rehearse;
use super::repertoire::Line;
use super::replay::{self, RefusedStatement, ReplayError, State};
use crate::auth::{self, Target, UpstreamError, Want};
use crate::cancel::Way;
use crate::gate::Course;
use crate::reads::Berth;
use crate::roll::Use;
use crate::route::{Route, Side};
use crate::shared::Shared;
use crate::stats::Stats;
use crate::upstream::{Params, TalkError, Upstream};

/// How long a replica may take to a login while there is another server to go to.
const REPLICA: Duration = Duration::from_secs(2);

/// Why there is no upstream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OpenError {
    #[error("there is no {0} server in the configuration")]
    NoServer(Side),
    #[error(transparent)]
    Login(#[from] UpstreamError),
    /// Each replica refused a reader, which may not go to the primary: what the last one said.
    #[error(transparent)]
    ByReplica(UpstreamError),
    /// No replica takes a reader, and it may not go to the primary.
    #[error("{0}")]
    NoReplica(String),
    /// The server that the session is on would not let it in again either.
    #[error("the session holds {0}")]
    Outdated(&'static str),
    #[error("{0}")]
    Replay(String),
    /// One of its session advisory locks is not to be had there.
    #[error("the session holds {0}")]
    Locked(String),
    /// Some prepared statements do not exist there.
    #[error("{}", replay::first(.0))]
    Statements(Vec<RefusedStatement>),
    /// Too many are being opened at once.
    #[error("no turn to open a connection within {0} ms")]
    NoTurn(u64),
    /// The connection was lost while it was made ready beyond what it must be.
    #[error("the connection was lost in a rehearsal: {0}")]
    Rehearsal(TalkError),
    #[error("{0}")]
    Internal(String),
}

impl OpenError {
    pub(super) fn internal(error: &dyn std::fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }

    /// Of what the server has no place, when that is why it refused.
    pub(crate) fn want_of_room(&self) -> Option<Want> {
        if let Self::Login(error) = self { error.want_of_room() } else { None }
    }

    /// The server's own refusal, for the client.
    pub(crate) fn server_message(&self) -> Option<&[u8]> {
        match self {
            Self::Login(UpstreamError::Refused { response, .. })
            | Self::ByReplica(UpstreamError::Refused { response, .. }) => Some(response),
            _ => None,
        }
    }

    /// Whether the primary says that the client has not proven who it is: what a replica says of that, by rules of its own,
    /// is no news of the user.
    pub(crate) fn is_authentication_failure(&self) -> bool {
        matches!(self, Self::Login(error) if error.is_authentication_failure())
    }

    /// What a client that logs in is told, as the server says it where it did.
    pub(crate) fn client_bytes(&self, user: &[u8]) -> Bytes {
        if let Self::Login(error) | Self::ByReplica(error) = self {
            return error.client_bytes(user);
        }
        // Of a driver that knows several hosts this is the code by which it goes on to the next one.
        let code = if let Self::NoReplica(_) = self { "57P03" } else { "08006" };
        let mut out = BytesMut::new();
        Report::fatal(code, self.to_string()).encode(&mut out);
        out.freeze()
    }
}

/// A session's first upstream, and what the server said to its client during the login (notices).
pub(crate) async fn open_first(
    shared: &Shared,
    origin: &Origin,
    course: Course,
) -> Result<(Upstream, BytesMut), OpenError> {
    open(shared, &origin.startup, origin, course, false).await
}

/// Opens a connection to the server that a client is to be on. `stays` says that it is a reader that fell back to a primary
/// before, and may have there what a replica would not take (`LISTEN`, a serializable default): it is on primaries for life.
async fn open(
    shared: &Shared,
    startup: &StartupMessage,
    origin: &Origin,
    course: Course,
    stays: bool,
) -> Result<(Upstream, BytesMut), OpenError> {
    let server = shared.server(course.side).ok_or(OpenError::NoServer(course.side))?;
    let limit = shared.config.limits.upstream_login();
    if origin.route == Route::Write {
        return Ok(open_at(shared, server, startup, origin, course, None, limit).await?);
    }
    let until = Instant::now() + limit;
    if !stays {
        let opened = open_at_replica(shared, startup, origin, course, until).await;
        if !shared.reads.falls_back() {
            return opened;
        } else if let Ok(opened) = opened {
            return Ok(opened);
        }
    }
    // By default it writes there as little as on a replica.
    let mut startup = startup.clone();
    startup.set("default_transaction_read_only", "on");
    let left = until.saturating_duration_since(Instant::now());
    let opened = open_at(shared, server, &startup, origin, course, None, left).await?;
    if !stays {
        Stats::count(&shared.stats.read_fallbacks);
    }
    Ok(opened)
}

/// Opens a reader's connection to a replica, and goes on to the next one when that does not take it, for whatever reason:
/// each has rules, places and troubles of its own. Those behind it have their time too, until `until`.
async fn open_at_replica(
    shared: &Shared,
    startup: &StartupMessage,
    origin: &Origin,
    course: Course,
    until: Instant,
) -> Result<(Upstream, BytesMut), OpenError> {
    let (replicas, may_fall_back) = (shared.reads.of(course.side), shared.reads.falls_back());
    let left = || until.saturating_duration_since(Instant::now());
    replicas.heard(REPLICA.min(left() / 2)).await;
    let (mut tried, mut refused) = (Vec::new(), None);
    while let Some(berth) = replicas.choose(&tried) {
        let replica = Arc::clone(berth.replica());
        tried.push(Arc::clone(&replica));
        let is_last = !may_fall_back && !replicas.has_more(&tried);
        let limit = if is_last { left() } else { REPLICA.min(left() / 2) };
        match open_at(shared, &replica.target, startup, origin, course, Some(berth), limit).await {
            Ok(opened) => return Ok(opened),
            Err(error) if error.is_no_answer() => replica.failed(error.to_string()),
            Err(error) => {
                tracing::info!(%error, "a replica does not take a reader");
                // Only a check tells whether that is the replica's state or this client's matter.
                replica.suspected.notify_one();
                refused = Some(error);
            }
        }
    }
    Err(refused.map_or_else(
        || {
            let why = replicas.shown(shared.reads.config.max_lag());
            OpenError::NoReplica(format!("no replica of {} takes sessions: {why}", course.side))
        },
        OpenError::ByReplica,
    ))
}

/// Opens a connection to one server; `berth` is its place there when that is a replica.
async fn open_at(
    shared: &Shared,
    server: &Arc<Target>,
    startup: &StartupMessage,
    origin: &Origin,
    course: Course,
    berth: Option<Berth>,
    limit: Duration,
) -> Result<(Upstream, BytesMut), UpstreamError> {
    let opened = auth::log_in(server, startup, &origin.credentials, limit).await?;
    let mut params = Params::default();
    for (name, value) in &opened.parameters {
        params.set(name, value);
    }
    let names = (origin.user(), startup.database().unwrap_or_default());
    let (key, tls) = (opened.cancel_key.as_ref(), opened.stream.is_tls());
    let ticket = shared.roll.enter(course.side, names, key, tls, berth);
    let upstream = Upstream {
        stream: opened.stream,
        params,
        cancel: opened.cancel_key.map(|key| Way::new(server, key)),
        course,
        ticket,
        early: opened.leftover,
        home: None,
    };
    Ok((upstream, opened.notices))
}

/// Whether the side that a session is on takes the login that another side refused. Where it does not, what the client has
/// proven holds no longer, and only the client could prove it anew; that its sides differ is another matter.
async fn outdated(shared: &Shared, origin: &Origin, course: Course, stays: bool) -> Option<&'static str> {
    match open(shared, &origin.startup, origin, course, stays).await {
        Ok((upstream, _)) => {
            upstream.close_later();
            None
        }
        Err(OpenError::Login(error) | OpenError::ByReplica(error)) if error.is_password_failure() => {
            Some("a login by a password that was changed since, or has expired")
        }
        Err(OpenError::Login(error) | OpenError::ByReplica(error)) if error.is_authentication_failure() => {
            Some("a login that its own server would no longer take")
        }
        Err(_) => None,
    }
}

/// What a session is before it gets a second upstream.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// The side that it is on, if it is on one.
    pub(super) own: Option<Side>,
    /// It is a reader that has been on a primary.
    pub(super) stays: bool,
    /// Its `default_transaction_read_only`: given at startup, so that the fence's default for the database, which holds on
    /// the other side now, does not stick to this connection after the fence is gone.
    pub(super) read_only: Option<Vec<u8>>,
}

/// Opens an upstream on a side and brings it to a session's state.
pub(super) async fn open_second(
    shared: Arc<Shared>,
    origin: Arc<Origin>,
    side: Side,
    past: Past,
    mut want: State,
    lines: Vec<Line>,
) -> Result<(Upstream, State), OpenError> {
    let Past { own, stays, read_only } = past;
    let limit = shared.config.limits.upstream_login();
    let turn = tokio::time::timeout(limit, Arc::clone(&shared.warming).acquire_owned()).await;
    let _turn = turn.map_err(|_| OpenError::NoTurn(shared.config.limits.upstream_login_ms))?;
    let mut startup = origin.startup.clone();
    if let Some(value) = read_only
        && !sets_read_only(&startup)
    {
        startup.set("default_transaction_read_only", value);
    }
    let course = Course { side, ..shared.gate.course() };
    let opened = open(&shared, &startup, &origin, course, stays).await;
    if let (Some(own), Err(OpenError::Login(error) | OpenError::ByReplica(error))) = (own, &opened)
        && error.is_authentication_failure()
        && let Some(why) = outdated(&shared, &origin, Course { side: own, ..course }, stays).await
    {
        return Err(OpenError::Outdated(why));
    }
    let (mut upstream, _) = opened?;
    upstream.ticket.set(Use::Ahead);
    let replayed = tokio::time::timeout(limit, replay::replay(&mut upstream, None, &want)).await;
    finish(&shared, replayed)?;
    rehearsed(&shared, &mut upstream, &mut want, &lines).await?;
    Ok((upstream, want))
}

/// Brings a second upstream from one state to another.
pub(super) async fn refresh(
    shared: Arc<Shared>,
    mut upstream: Upstream,
    from: State,
    mut want: State,
    lines: Vec<Line>,
) -> Result<(Upstream, State), OpenError> {
    let limit = shared.config.limits.upstream_login();
    let replayed = tokio::time::timeout(limit, replay::replay(&mut upstream, Some(&from), &want)).await;
    finish(&shared, replayed)?;
    // While all turns are taken there is no hurry: what is not rehearsed now is next time.
    match Arc::clone(&shared.warming).try_acquire_owned() {
        Ok(_turn) => rehearsed(&shared, &mut upstream, &mut want, &lines).await?,
        Err(_) => want.repertoire_revision = from.repertoire_revision,
    }
    Ok((upstream, want))
}

/// Rehearses and notes what was.
async fn rehearsed(
    shared: &Shared,
    upstream: &mut Upstream,
    want: &mut State,
    lines: &[Line],
) -> Result<(), OpenError> {
    if want.rehearsed.is_empty() && !lines.is_empty() && !shared.gate.is_closed() {
        rehearse::prologue(upstream, &shared.gate).await.map_err(OpenError::Rehearsal)?;
    }
    let done = rehearse::rehearse(upstream, &shared.gate, lines, want.unnamed.as_deref()).await;
    let done = done.map_err(OpenError::Rehearsal)?;
    want.rehearsed.extend(lines.iter().take(done).map(|line| line.shape));
    Ok(())
}

fn finish(
    shared: &Shared,
    replayed: Result<Result<(), ReplayError>, tokio::time::error::Elapsed>,
) -> Result<(), OpenError> {
    match replayed {
        Ok(Ok(())) => Ok(()),
        Ok(Err(ReplayError::Locks(error @ LockError::Taken(_)))) => Err(OpenError::Locked(error.to_string())),
        Ok(Err(ReplayError::Statements(refused))) => Err(OpenError::Statements(refused)),
        Ok(Err(error)) => Err(OpenError::Replay(error.to_string())),
        Err(_) => Err(OpenError::Replay(format!(
            "the session's state was not replayed within {} ms",
            shared.config.limits.upstream_login_ms
        ))),
    }
}

/// Whether the client itself decides about `default_transaction_read_only`.
pub(super) fn sets_read_only(startup: &StartupMessage) -> bool {
    let named = startup.params.iter().any(|p| p.name.eq_ignore_ascii_case(b"default_transaction_read_only"));
    let options = startup.get("options").unwrap_or_default().to_ascii_lowercase();
    named || options.windows(29).any(|window| window == b"default_transaction_read_only")
}
