//! Owns one running proxy: its listeners, its shards, its keepers, its end.
//! Refuses to know what happens on a connection.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::auth::{ServiceLogins, Target, TargetError};
use crate::config::{Comers, Config, ConfigError};
use crate::farewell::{self, Farewell};
use crate::gate::{Event, Gate};
use crate::login::{Login, LoginSetupError, Peer};
use crate::metrics;
use crate::pool::Pool;
use crate::reads::{self, Reads, ReplicaError};
use crate::recorder::Recorder;
use crate::registry::{Command, Entry, Registry};
use crate::route::Side;
use crate::shards::{Accepted, Entrance, Shards};
use crate::shared::{Shared, WarmSide};
use crate::state_file::{Saved, StateFile, StateFileError};
use crate::stats::{Limit, Stats};

/// How often second upstreams that fell behind are brought up to date while nobody holds.
const REFRESH: Duration = Duration::from_millis(500);
/// They are told in so many portions at most, so long apart.
const REFRESH_TURNS: usize = 100;
const REFRESH_BREATH: Duration = Duration::from_millis(4);

/// Why a proxy cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state file cannot be used.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// A server's settings cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// What logins need cannot be read.
    #[error(transparent)]
    Login(#[from] LoginSetupError),
    /// The state file says a side that the configuration does not have.
    #[error("the state file says {0}, and there is no such server in the configuration")]
    NoServer(Side),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address or socket path.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The threads that sessions live on cannot be had.
    #[error("cannot start a thread for sessions: {0}")]
    Threads(std::io::Error),
}

/// A running proxy. Dropping it ends everything at once; [`Proxy::shutdown`] lets transactions end.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    shards: Option<Shards>,
    entrance: Arc<Entrance>,
    stop: watch::Sender<bool>,
    addresses: Vec<SocketAddr>,
    readers: Vec<SocketAddr>,
    console: Vec<SocketAddr>,
    socket: Option<PathBuf>,
    metrics: Option<SocketAddr>,
}

impl Proxy {
    /// Starts listening. Route and highest epoch come from the state file when there is one; nothing is ever held at the
    /// start.
    ///
    /// # Errors
    /// [`StartError`]; nothing listens then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let shared = Self::assemble(config)?;
        let (threads, listeners) = (shared.config.threads(), shared.config.tcp().count() + 1);
        let room = listeners * most_connections(&shared);
        let (shards, entrance) = Shards::start(threads, room, &shared).map_err(StartError::Threads)?;
        let mut proxy = Self {
            shared,
            tasks: JoinSet::new(),
            shards: Some(shards),
            entrance,
            stop: watch::Sender::new(false),
            addresses: Vec::new(),
            readers: Vec::new(),
            console: Vec::new(),
            socket: None,
            metrics: None,
        };
        proxy.listen_for_metrics().await?;
        proxy.listen().await?;
        proxy.keep()?;
        Ok(proxy)
    }

    /// Looks whether [`Proxy::start`] could: does all of it but listening, so that no client ever comes.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn check(config: Config) -> Result<(), StartError> {
        let shared = Self::assemble(config)?;
        let addresses = shared.config.tcp().map(|(address, _)| address).chain(shared.config.metrics);
        for address in addresses {
            let failed = |source| StartError::Listen { address: address.to_string(), source };
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).map_err(failed)?;
            // As the listener will have it: an address that a process has just left is free.
            socket.set_reuse_address(true).map_err(failed)?;
            socket.bind(&address.into()).map_err(failed)?;
        }
        socket_path(&shared.config).map_or(Ok(()), |path| free(&path))
    }

    fn assemble(config: Config) -> Result<Arc<Shared>, StartError> {
        config.check()?;
        let first = Saved { route: config.initial_route, epoch: 0 };
        let (file, saved) = StateFile::open(&config.state_file, first)?;
        let iterations = config.auth.max_scram_iterations;
        let target = |server| Target::new(server, iterations).map(Arc::new);
        let blue = target(&config.blue)?;
        let green = config.green.as_ref().map(target).transpose()?;
        let services =
            ServiceLogins::read(&config.auth, &blue, green.as_ref()).map_err(LoginSetupError::from)?;
        let active = services.of(saved.route).ok_or(StartError::NoServer(saved.route))?;
        let active = Arc::clone(active);
        let login = Login::new(&config, services, active)?;
        let reads = Reads::new(&config, &blue, green.as_ref()).map_err(|error| match error {
            ReplicaError::Config(error) => StartError::Config(error),
            ReplicaError::Target(error) => StartError::Target(error),
        })?;
        let gate = Arc::new(Gate::new(saved.route, saved.epoch));
        Ok(Arc::new(Shared {
            blue,
            green,
            reads,
            pool: Pool::new(&config.pool, config.threads(), &gate),
            gate,
            registry: Registry::new(),
            stats: Stats::default(),
            lobby: Arc::default(),
            quota: Arc::default(),
            roll: Arc::default(),
            recorder: Arc::new(Recorder::new(file, saved)),
            login,
            farewell: Arc::new(Farewell::new(config.limits.max_clients)),
            warming: Arc::new(Semaphore::new(config.limits.warm_concurrency)),
            warm_side: WarmSide::default(),
            config,
            reloading: Mutex::default(),
        }))
    }

    async fn listen(&mut self) -> Result<(), StartError> {
        for (address, comers) in self.shared.config.tcp().collect::<Vec<_>>() {
            let failed = |source| StartError::Listen { address: address.to_string(), source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            match comers {
                Comers::Clients | Comers::Balancers => self.addresses.push(bound),
                Comers::Readers => self.readers.push(bound),
                Comers::Operators => self.console.push(bound),
            }
            let listener = Listener::Tcp { listener, comers };
            self.tasks.spawn(accept(self.door(), listener, self.stop.subscribe()));
        }
        if let Some(path) = socket_path(&self.shared.config) {
            let failed = |source| StartError::Listen { address: path.display().to_string(), source };
            free(&path)?;
            // A socket that nobody answers is left over from a process that was killed.
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).map_err(failed)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).map_err(failed)?;
            let us = std::fs::metadata(&path)
                .map(|meta| std::os::unix::fs::MetadataExt::uid(&meta))
                .map_err(failed)?;
            self.socket = Some(path);
            let listener = Listener::Unix { listener, us };
            self.tasks.spawn(accept(self.door(), listener, self.stop.subscribe()));
        }
        Ok(())
    }

    async fn listen_for_metrics(&mut self) -> Result<(), StartError> {
        let Some(address) = self.shared.config.metrics else { return Ok(()) };
        let failed = |source| StartError::Listen { address: address.to_string(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        self.metrics = Some(listener.local_addr().map_err(failed)?);
        self.tasks.spawn(metrics::listen(Arc::clone(&self.shared), listener, self.stop.subscribe()));
        Ok(())
    }

    fn door(&self) -> Door {
        let places = Arc::new(Semaphore::new(most_connections(&self.shared)));
        Door { entrance: Arc::clone(&self.entrance), places }
    }

    fn keep(&mut self) -> Result<(), StartError> {
        let gate = Arc::clone(&self.shared.gate);
        self.tasks.spawn(async move { gate.keep_limits().await });
        let (gate, farewell) = (Arc::clone(&self.shared.gate), Arc::clone(&self.shared.farewell));
        self.tasks.spawn(async move { farewell.keep(&gate).await });
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move { shared.pool.keep().await });
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            loop {
                tokio::time::sleep(REFRESH).await;
                thin_out(&shared);
            }
        });
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            loop {
                tokio::time::sleep(REFRESH).await;
                refresh_in_turns(&shared).await;
            }
        });
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(reads::watch(shared));
        Ok(())
    }

    /// The TCP addresses listened on, with the ports that were taken; those for load balancers last.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The TCP addresses where every client is a reader, with the ports that were taken.
    #[must_use]
    pub fn read_addresses(&self) -> &[SocketAddr] {
        &self.readers
    }

    /// The TCP addresses where only the console is, with the ports that were taken.
    #[must_use]
    pub fn console_addresses(&self) -> &[SocketAddr] {
        &self.console
    }

    /// Where the metrics are.
    #[must_use]
    pub const fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// The path of the Unix socket.
    #[must_use]
    pub fn socket(&self) -> Option<&std::path::Path> {
        self.socket.as_deref()
    }

    /// Begins to read certificates and keys again. What cannot be used is logged, and what was read before stays.
    pub fn reload(&self) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move { Shared::reload(&shared).await });
    }

    /// Ends the proxy: no new connections, a hold is released, idle sessions end with 57P01, open transactions may end
    /// within `limits.shutdown_ms`, then they end as well.
    pub async fn shutdown(mut self) {
        let _ = self.stop.send(true);
        let _ = self.shared.gate.drive(&Event::Shutdown, Instant::now(), |_, _| Ok(()));
        let deadline = Instant::now() + Duration::from_millis(self.shared.config.limits.shutdown_ms);
        loop {
            let all = self.shared.registry.all();
            if all.is_empty() {
                break;
            }
            let late = Instant::now() >= deadline;
            for entry in all.iter().filter(|entry| late || entry.inside_since.load(Relaxed) == 0) {
                let why = "terminating connection: the proxy is shutting down".to_owned();
                entry.tell(Command::End { why, reply: None });
            }
            if Instant::now() >= deadline + Duration::from_secs(1) {
                tracing::warn!(left = all.len(), "sessions that did not end in time are dropped");
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        farewell::close_all(self.shared.pool.hold()).await;
        if let Some(shards) = self.shards.take() {
            shards.end().await;
        }
    }
}

fn socket_path(config: &Config) -> Option<PathBuf> {
    let directory = config.unix_dir.as_ref()?;
    Some(directory.join(format!(".s.PGSQL.{}", config.unix_port)))
}

/// Whether nobody listens on a Unix socket of this path.
fn free(path: &std::path::Path) -> Result<(), StartError> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(StartError::Listen {
            address: path.display().to_string(),
            source: std::io::ErrorKind::AddrInUse.into(),
        }),
        Err(_) => Ok(()),
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Ends connections that do not say who they are, when they are too many.
fn thin_out(shared: &Shared) {
    let most = shared.config.limits.max_unauthenticated;
    let gone = shared.lobby.thin_out(most, std::time::Instant::now());
    if gone > 0 {
        shared.stats.hit_by(Limit::MaxUnauthenticated, gone);
        tracing::warn!(gone, most, "connections that did not say who they are were ended");
    }
}

/// Tells sessions whose second upstream fell behind to bring it up to date, all at once.
pub(crate) fn refresh_stale(shared: &Shared) {
    let Some(side) = shared.warm_side() else { return };
    shared.mark_left();
    let behind = |entry: &Arc<Entry>| entry.stale.load(Relaxed) || entry.details().locks;
    for entry in shared.registry.all().into_iter().filter(behind) {
        entry.tell(Command::Warm { side, reply: None });
    }
}

/// As [`refresh_stale`], a few at a time. A hold tells all of them by itself.
async fn refresh_in_turns(shared: &Shared) {
    let stale = stale(shared);
    for some in stale.chunks(stale.len().div_ceil(REFRESH_TURNS).max(1)) {
        let Some(side) = shared.warm_side() else { return };
        for entry in some.iter().filter(|entry| lags(shared, entry)) {
            entry.tell(Command::Warm { side, reply: None });
        }
        tokio::time::sleep(REFRESH_BREATH).await;
    }
}

fn stale(shared: &Shared) -> Vec<Arc<Entry>> {
    if shared.warm_side().is_none() {
        return Vec::new();
    }
    shared.mark_left();
    let mut all = shared.registry.all();
    all.retain(|entry| lags(shared, entry));
    all
}

/// Whether a session is to be told. Locks of a hold that came to nothing are given back soon, also by those that say nothing.
fn lags(shared: &Shared, entry: &Entry) -> bool {
    entry.stale.load(Relaxed) || (!shared.gate.is_closed() && entry.details().ghosts)
}

/// What a listener hands its connections to, and how many more it may.
#[derive(Debug)]
struct Door {
    entrance: Arc<Entrance>,
    places: Arc<Semaphore>,
}

impl Door {
    /// A place for the next connection. Never refused: nobody closes the semaphore.
    async fn place(&self) -> std::io::Result<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.map_err(std::io::Error::other)
    }
}

/// What connections come in by.
#[derive(Debug)]
enum Listener {
    Tcp {
        listener: TcpListener,
        comers: Comers,
    },
    /// `us` is the proxy's own operating-system user.
    Unix {
        listener: UnixListener,
        us: u32,
    },
}

impl Listener {
    async fn next(&self) -> std::io::Result<(Accepted, Peer)> {
        match self {
            Self::Tcp { listener, comers } => {
                let (stream, peer) = listener.accept().await?;
                keep_alive(&stream);
                let peer = match comers {
                    Comers::Clients => Peer::Tcp(peer),
                    Comers::Readers => Peer::Reader(peer),
                    Comers::Balancers => Peer::Balancer(peer),
                    Comers::Operators => Peer::Operator(peer),
                };
                Ok((Accepted::Tcp(stream.into_std()?), peer))
            }
            Self::Unix { listener, us } => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().map(|cred| cred.uid()).ok();
                let peer = if uid == Some(*us) || uid == Some(0) { Peer::Us } else { Peer::Local };
                Ok((Accepted::Unix(stream.into_std()?), peer))
            }
        }
    }
}

/// Accepts connections until told to stop.
async fn accept(door: Door, listener: Listener, mut stop: watch::Receiver<bool>) {
    let next = async || {
        let place = door.place().await?;
        let (connection, peer) = listener.next().await?;
        door.entrance.admit(connection, peer, place);
        Ok::<_, std::io::Error>(())
    };
    loop {
        let accepted = tokio::select! {
            accepted = next() => accepted,
            _ = stop.changed() => return,
        };
        if let Err(error) = accepted {
            // Out of descriptors, most likely: it passes when sessions end.
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Messages leave at once, and a client whose machine vanished is noticed within two minutes or so.
fn keep_alive(stream: &TcpStream) {
    let probes =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10));
    let set = stream.set_nodelay(true).and_then(|()| SockRef::from(stream).set_tcp_keepalive(&probes));
    if let Err(error) = set {
        tracing::debug!(%error, "a client's socket options");
    }
}

/// Connections that one listener serves at once: those of clients, those that do not say who they are, some that are about to
/// be refused with a reason, and the console. Further ones wait in the kernel's queue.
fn most_connections(shared: &Shared) -> usize {
    shared.config.limits.max_clients + shared.config.limits.max_unauthenticated + 100
}
