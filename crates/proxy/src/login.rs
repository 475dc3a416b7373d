//! Owns the way of one accepted connection up to a running session: greeting, login, place inside the gate, first
//! upstream, and the messages that tell the client it is ready.
//! Refuses to know what the session does afterwards.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pgteal_wire::cancel::CancelKey;
use pgteal_wire::message::authentication::Authentication;
use pgteal_wire::message::backend::{
    ParameterStatus, TransactionStatus, put_backend_key_data, put_ready_for_query,
};
use pgteal_wire::message::report::Report;
use pgteal_wire::startup::{ProtocolVersion, StartupMessage};
use tokio::io::AsyncWriteExt;

use crate::auth::{
    self, AuthQuery, ClientLogin, Credentials, Greeting, ServiceLogin, ServiceLogins, ServicePasswordError,
    TargetError, VerifierLookup, Want, mock_secret,
};
use crate::cancel;
use crate::config::{AuthMethod, Config};
use crate::console;
use crate::gate::Pass;
use crate::lobby::{Named, Seat, Stage};
use crate::mailbox::Mailbox;
use crate::pool::Kind;
use crate::proxy_protocol;
use crate::reads;
use crate::registry::{Details, Entry, Tally};
use crate::route::{Route, Side};
use crate::session::{OpenError, Origin, Session, open_first};
use crate::shards::Place;
use crate::shared::Shared;
use crate::stats::{Limit, Stats};
use crate::stream::Stream;
use crate::tls::{ClientTls, TlsError};
use crate::upstream::Upstream;

/// The database name by which a client asks for the console.
const CONSOLE: &[u8] = b"pgteal";
/// How often a login that is under way looks whether clients are held.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often a login is tried that finds no place on its server, where connections that nobody uses gave theirs up.
const TRIES: usize = 4;
/// How long a load balancer may take to say whose connection it passes on; it says so at once.
const PROXY_HEADER: Duration = Duration::from_secs(3);

/// Why clients could not be let in at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginSetupError {
    /// The certificate shown to clients.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A server's address or roots.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The service role's password.
    #[error(transparent)]
    ServicePassword(#[from] ServicePasswordError),
}

/// How clients are let in.
#[derive(Debug)]
pub(crate) struct Login {
    tls: Option<ClientTls>,
    tls_required: bool,
    /// Where only the console is.
    admin_tls: Option<ClientTls>,
    admin_policy: ClientLogin<Arc<AuthQuery>>,
    policy: ClientLogin<Arc<AuthQuery>>,
    /// Who looks up verifiers on each side.
    services: ServiceLogins,
    /// Whether passwords are checked by what is looked up.
    looks_up: bool,
}

impl Login {
    /// Reads what logins need. The verifiers of the side of `active` count.
    pub(crate) fn new(
        config: &Config,
        services: ServiceLogins,
        active: Arc<ServiceLogin>,
    ) -> Result<Self, LoginSetupError> {
        let tls = config.tls.as_ref().map(ClientTls::load).transpose()?;
        let lookup = AuthQuery::new(&config.auth, active, config.limits.upstream_login());
        let secret = mock_secret(&config.state_file.with_extension("seed"));
        let lookup = Arc::new(lookup);
        let policy = |clientcert| {
            let (method, cleartext) = (config.auth.method, config.auth.cleartext_without_tls);
            ClientLogin::new(method, cleartext, secret, Arc::clone(&lookup)).clientcert(clientcert)
        };
        let admin = config.admin_tls().filter(|_| !config.admin.listen.is_empty());
        Ok(Self {
            tls,
            tls_required: config.tls.as_ref().is_some_and(|tls| tls.required),
            policy: policy(config.clientcert()),
            admin_tls: admin.map(ClientTls::load).transpose()?,
            admin_policy: policy(admin.map(|tls| tls.clientcert).unwrap_or_default()),
            services,
            looks_up: config.auth.method == AuthMethod::Verifier,
        })
    }

    /// The certificate shown to clients.
    pub(crate) const fn tls(&self) -> Option<&ClientTls> {
        self.tls.as_ref()
    }

    /// The certificate shown where only the console is.
    pub(crate) const fn admin_tls(&self) -> Option<&ClientTls> {
        self.admin_tls.as_ref()
    }

    /// Verifiers are looked up on this side from now on.
    pub(crate) fn turn(&self, active: Side) {
        if let Some(service) = self.services.of(active) {
            self.policy.lookup().set_service(Arc::clone(service));
        }
    }

    /// The service role on a side, if the side is configured.
    pub(crate) const fn service(&self, side: Side) -> Option<&Arc<ServiceLogin>> {
        self.services.of(side)
    }

    /// Whether clients could be let in when that side serves, found out within `limit`.
    pub(crate) async fn rehearse(&self, side: Side, limit: Duration) -> Result<(), String> {
        match self.services.of(side) {
            Some(service) if self.looks_up => self.policy.lookup().rehearse(service, limit).await,
            _ => Ok(()),
        }
    }
}

/// Who comes, as the listener knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Peer {
    /// Our own operating-system user, or root, over the Unix socket.
    Us,
    /// Somebody else over the Unix socket.
    Local,
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over TCP where every client is a reader.
    Reader(SocketAddr),
    /// Over TCP where load balancers say whose connections they pass on.
    Balancer(SocketAddr),
    /// Over TCP where only the console is.
    Operator(SocketAddr),
}

impl Peer {
    /// Where the connection comes from.
    const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Us | Self::Local => None,
            Self::Tcp(address)
            | Self::Reader(address)
            | Self::Balancer(address)
            | Self::Operator(address) => Some(address),
        }
    }
}

/// Whose connection a load balancer passes on. `None`: closed without a word, for nobody knows what the other side speaks.
async fn behind(shared: &Shared, stream: &mut Stream, peer: SocketAddr) -> Option<SocketAddr> {
    if !shared.config.proxy_protocol.from.iter().any(|network| network.contains(peer.ip())) {
        tracing::info!(%peer, "a PROXY header is taken from other networks only");
        return None;
    }
    match tokio::time::timeout(PROXY_HEADER, proxy_protocol::read(stream)).await {
        Ok(Ok(source)) => return Some(source.unwrap_or(peer)),
        Ok(Err(error)) => tracing::info!(%peer, %error, "not served"),
        Err(_) => tracing::info!(%peer, "no PROXY header within {PROXY_HEADER:?}"),
    }
    None
}

/// Serves one accepted connection to its end. When there is a session it goes on as a task of its own, with the
/// connection's place, and takes no memory for the way it came.
pub(crate) async fn serve(shared: Arc<Shared>, mut stream: Stream, peer: Peer, mut place: Place) {
    Stats::count(&shared.stats.accepted);
    let mut address = peer.address();
    let shown = |address: Option<SocketAddr>| address.map_or_else(|| "local".into(), |a| a.to_string());
    let seat = shared.lobby.enter(shared.registry.next_id(), shown(address));
    if let Peer::Balancer(balancer) = peer {
        let Some(client) = behind(&shared, &mut stream, balancer).await else { return };
        address = Some(client);
        seat.comes_from(client.to_string());
    }
    let client_addr = shown(address);
    let began = Instant::now();
    let limit = shared.config.limits.client_login();
    let login = &shared.login;
    let greet = match peer {
        // Commands and passwords go by TLS where that is to be had.
        Peer::Operator(_) => auth::greet(stream, login.admin_tls.as_ref(), login.admin_tls.is_some()),
        _ => auth::greet(stream, login.tls.as_ref(), login.tls_required),
    };
    let greeting = tokio::select! {
        greeting = tokio::time::timeout(limit, greet) => greeting,
        () = seat.shown_out() => return,
    };
    let (stream, mut startup) = match greeting {
        Ok(Ok(Greeting::Cancel { stream, key })) => {
            cancel::pass_on(&shared, &key).await;
            return drop(stream);
        }
        Ok(Ok(Greeting::Session { stream, startup })) => (stream, startup),
        Ok(Err(error)) => return tracing::debug!(client_addr, %error, "no greeting"),
        Err(_) => {
            shared.stats.hit(Limit::ClientLogin);
            return tracing::debug!(client_addr, "no startup packet within {limit:?}");
        }
    };
    // The time of a login is that of its parts together.
    let limit = limit.saturating_sub(began.elapsed());
    // Only by its name: a user of that name who names no database wants a server's, and a walsender has none.
    if startup.get("database") == Some(CONSOLE) && !startup.is_replication() {
        seat.reaches(Stage::Proving);
        return console::admit(shared, stream, startup, peer, limit, seat).await;
    }
    if let Peer::Operator(_) = peer {
        let why = "only the console is at this address, as the database \"pgteal\"";
        return refuse(stream, Report::fatal("3D000", why)).await;
    }
    let route = match route_of(&mut startup, peer) {
        Ok(route) => route,
        Err(why) => return refuse(stream, Report::fatal("22023", why)).await,
    };
    if startup.user().is_none() {
        let report = Report::fatal("28000", "no PostgreSQL user name specified in startup packet");
        return refuse(stream, report).await;
    }
    seat.is(Named::of(&startup));
    if let Some(most) = held_too_many(&shared) {
        shared.stats.hit(Limit::MaxHeldClients);
        let why = format!("the proxy's limit of {most} held clients is reached (max_held_clients)");
        return refuse(stream, Report::fatal("53300", why)).await;
    }
    wait_for_the_gate(&shared, &seat).await;
    seat.reaches(Stage::Proving);
    let proven = tokio::select! {
        proven = authenticate(&shared, stream, startup, peer, limit) => proven,
        () = seat.shown_out() => return,
    };
    let Some((stream, startup, credentials)) = proven else { return };
    seat.reaches(Stage::Opening);
    // Only who has proven who it is takes a place of that user's.
    let names = (startup.user().unwrap_or_default(), startup.database().unwrap_or_default());
    match shared.quota.take(&shared.config.limits, names, address.map(|address| address.ip())) {
        Ok(claim) => place.claim = Some(claim),
        Err(full) => {
            shared.stats.hit(full.limit);
            return refuse(stream, Report::fatal("53300", full.to_string())).await;
        }
    }
    let origin = Arc::new(Origin { startup, credentials, route });
    if let Some(session) = begin(shared, stream, origin, client_addr, seat, place.thread()).await {
        tokio::spawn(session.run(place));
    }
}

/// The route that a client takes: the one of its address, or the one that it asks for.
fn route_of(startup: &mut StartupMessage, peer: Peer) -> Result<Route, String> {
    let wish = reads::take_wish(startup).map_err(|value| {
        format!("invalid value for parameter \"pgteal.route\": \"{value}\" (read, write)")
    })?;
    match (peer, wish) {
        (Peer::Reader(_), Some(Route::Write)) => {
            Err("every client of this address is a reader, and pgteal.route says write".into())
        }
        (Peer::Reader(_), _) => Ok(Route::Read),
        (_, wish) => Ok(wish.unwrap_or_default()),
    }
}

/// During a hold a new connection waits here: nothing of it reaches a server before the release. The hold's own limit
/// bounds the wait.
async fn wait_for_the_gate(shared: &Arc<Shared>, seat: &Seat) {
    while shared.gate.is_closed() {
        let opened = shared.gate.opened();
        tokio::pin!(opened);
        opened.as_mut().enable();
        if shared.gate.is_closed() {
            seat.reaches(Stage::Held);
            opened.await;
        }
    }
}

/// The bound of those who may wait before the gate, when it is reached and the gate is closed.
fn held_too_many(shared: &Shared) -> Option<usize> {
    let most = shared.config.limits.max_held_clients;
    if most == 0 || !shared.gate.is_closed() {
        return None;
    }
    let sessions = usize::try_from(shared.gate.waiting()).unwrap_or(usize::MAX);
    (sessions.saturating_add(shared.lobby.count_held()) >= most).then_some(most)
}

/// Has a client prove who it is, as far as that is the proxy's to ask.
pub(crate) async fn authenticate(
    shared: &Shared,
    mut stream: Stream,
    startup: StartupMessage,
    peer: Peer,
    limit: Duration,
) -> Option<(Stream, StartupMessage, Credentials)> {
    let user = startup.user().unwrap_or_default();
    let login = &shared.login;
    let policy = if let Peer::Operator(_) = peer { &login.admin_policy } else { &login.policy };
    let proven = tokio::time::timeout(limit, policy.run(&mut stream, user)).await;
    match proven {
        Ok(Ok(credentials)) => Some((stream, startup, credentials)),
        Ok(Err(error)) => {
            Stats::count(&shared.stats.login_failures);
            tracing::info!(%error, "login refused");
            None
        }
        Err(_) => {
            Stats::count(&shared.stats.login_failures);
            shared.stats.hit(Limit::ClientLogin);
            tracing::info!("login not finished within {limit:?}");
            None
        }
    }
}

/// Takes or opens the first upstream, inside the gate: a hold that comes meanwhile waits for it, so that no connection is
/// opened on a side that is about to be fenced. A server that takes its time keeps nobody from draining: the login is given
/// up and begun anew after the hold.
async fn open_inside(
    shared: &Arc<Shared>,
    origin: &Origin,
    seat: &Seat,
    thread: usize,
) -> Result<(Upstream, BytesMut), OpenError> {
    let kind = Kind::of(origin);
    let mut pass = Pass::outside(Arc::clone(&shared.gate));
    loop {
        let opened = shared.gate.opened();
        tokio::pin!(opened);
        opened.as_mut().enable();
        if pass.enter().is_some() {
            tokio::select! {
                biased;
                upstream = take_or_open(shared, origin, kind.as_ref(), thread) => return upstream,
                () = closed_for_long(shared) => pass.leave(),
            }
        }
        seat.reaches(Stage::Held);
        opened.await;
        seat.reaches(Stage::Opening);
    }
}

/// Waits until clients have been held for a while.
async fn closed_for_long(shared: &Shared) {
    let mut was_closed = false;
    loop {
        tokio::time::sleep(PATIENCE).await;
        if std::mem::replace(&mut was_closed, shared.gate.is_closed()) && was_closed {
            return;
        }
    }
}

async fn take_or_open(
    shared: &Shared,
    origin: &Origin,
    kind: Option<&Kind>,
    thread: usize,
) -> Result<(Upstream, BytesMut), OpenError> {
    let course = shared.gate.course();
    if let Some(kind) = kind
        && let Some(upstream) = shared.pool.take(thread, kind, course).await
    {
        return Ok((upstream, BytesMut::new()));
    }
    let home = kind.and_then(|kind| shared.pool.home(kind.clone()));
    let mut tries = 1;
    let (mut upstream, notices) = loop {
        let seen = shared.pool.room_made();
        let opened = open_first(shared, origin, course).await;
        let want = opened.as_ref().err().and_then(OpenError::want_of_room);
        match want {
            // Those that nobody uses may have the places.
            Some(want) if tries < TRIES => {
                let user = (want == Want::OfRole).then(|| origin.user());
                if !shared.pool.make_room(user, seen).await {
                    break opened?;
                }
                tries += 1;
            }
            _ => break opened?,
        }
    };
    upstream.home = home;
    Ok((upstream, notices))
}

async fn begin(
    shared: Arc<Shared>,
    mut stream: Stream,
    origin: Arc<Origin>,
    client_addr: String,
    seat: Seat,
    thread: usize,
) -> Option<Box<Session>> {
    let (upstream, notices) = match open_inside(&shared, &origin, &seat, thread).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::info!(%error, "no upstream for a new session");
            if error.is_authentication_failure() {
                Stats::count(&shared.stats.login_failures);
                shared.login.policy.lookup().login_failed(origin.user());
                shared.pool.refused(origin.user());
            }
            tell(stream, &error.client_bytes(origin.user())).await;
            return None;
        }
    };
    let key = upstream.cancel.as_ref().and_then(|_| {
        let long = origin.startup.version >= ProtocolVersion::V3_2;
        CancelKey::mint(if long { 32 } else { 4 }).ok()
    });
    let out = welcome(&upstream, &notices, key.as_ref());
    if stream.write_all(&out).await.is_err() || stream.flush().await.is_err() {
        upstream.close_later();
        return None;
    }
    let text =
        |name: &str| String::from_utf8_lossy(origin.startup.get(name).unwrap_or_default()).into_owned();
    let entry = Arc::new(Entry {
        id: seat.id(),
        user: text("user"),
        database: String::from_utf8_lossy(origin.startup.database().unwrap_or_default()).into_owned(),
        application_name: text("application_name"),
        route: origin.route,
        client_addr,
        key,
        inside_since: AtomicU64::new(0),
        held: AtomicBool::new(false),
        held_since: AtomicU64::new(0),
        held_bytes: AtomicU64::new(0),
        stale: AtomicBool::new(false),
        queries: AtomicU64::new(0),
        received: Tally::default(),
        sent: Tally::default(),
        details: std::sync::Mutex::new(Details::default()),
        mailbox: Mailbox::default(),
    });
    Some(Box::new(Session::new(shared, entry, origin, stream, upstream)))
}

/// AuthenticationOk, the server's parameters, a key of our own if the server gave one, ReadyForQuery.
fn welcome(upstream: &Upstream, notices: &BytesMut, key: Option<&CancelKey>) -> BytesMut {
    let mut out = BytesMut::new();
    Authentication::Ok.encode(&mut out);
    for (name, value) in upstream.params.iter() {
        ParameterStatus { name, value }.encode(&mut out);
    }
    if let Some(key) = key {
        put_backend_key_data(&mut out, key);
    }
    out.extend_from_slice(notices);
    put_ready_for_query(&mut out, TransactionStatus::Idle);
    out
}

pub(crate) async fn refuse(stream: Stream, report: Report) {
    let mut out = BytesMut::new();
    report.encode(&mut out);
    tell(stream, &out).await;
}

/// The last words to a client.
async fn tell(mut stream: Stream, bytes: &[u8]) {
    let told = async {
        stream.write_all(bytes).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), told).await;
}
