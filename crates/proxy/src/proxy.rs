//! Owns one running proxy: its listeners, its shards, its keepers, its end.
//! Refuses to know what happens on a connection.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::auth::{ServiceLogins, Target, TargetError};
use crate::config::{Comers, Config, ConfigError};
use crate::farewell::Farewell;
use crate::gate::Gate;
use crate::listeners::{Door, Listener, accept, free, most_connections, socket_path};
use crate::login::{Login, LoginSetupError};
use crate::metrics;
use crate::pool::Pool;
use crate::reads::{self, Reads, ReplicaError};
use crate::recorder::Recorder;
use crate::registry::{Command, Entry, Registry};
use crate::route::Side;
use crate::shards::{Entrance, Shards};
use crate::shared::{Shared, WarmSide};
use crate::state_file::{Saved, StateFile, StateFileError};
use crate::stats::{Limit, Stats};
use crate::takeover::{self, Inheritance, Name, Takeover, TakeoverError};

/// How often second upstreams that fell behind are brought up to date while nobody holds.
const REFRESH: Duration = Duration::from_millis(500);
/// They are told in so many portions at most, so long apart.
const REFRESH_TURNS: usize = 100;
const REFRESH_BREATH: Duration = Duration::from_millis(4);
/// How long a process that ends may keep the state file.
pub(crate) const TO_END: Duration = Duration::from_secs(2);

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
    /// The proxy that serves could not be taken over from. It goes on.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// The threads that sessions live on cannot be had.
    #[error("cannot start a thread for sessions: {0}")]
    Threads(std::io::Error),
}

/// A running proxy. Dropping it ends everything at once; [`Proxy::shutdown`] lets transactions end.
#[derive(Debug)]
pub struct Proxy {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tasks: JoinSet<()>,
    /// What lets connections in, and what hands our sockets to another process.
    pub(crate) doors: JoinSet<()>,
    pub(crate) shards: Option<Shards>,
    pub(crate) entrance: Arc<Entrance>,
    pub(crate) stop: watch::Sender<bool>,
    /// The files of our sockets, as long as they are ours.
    files: Vec<PathBuf>,
    addresses: Vec<SocketAddr>,
    readers: Vec<SocketAddr>,
    console: Vec<SocketAddr>,
    pub(crate) socket: Option<PathBuf>,
    metrics: Option<SocketAddr>,
}

impl Proxy {
    /// Starts listening. Route and highest epoch come from the state file when there is one; nothing is ever held at the
    /// start.
    ///
    /// # Errors
    /// [`StartError`]; nothing listens then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let state = Self::own_state(&config, TO_END).await?;
        Self::begin(config, state, None).await
    }

    /// The state file, for this process alone. One that ends has it until it is gone, and may write it till then.
    pub(crate) async fn own_state(
        config: &Config,
        patience: Duration,
    ) -> Result<(StateFile, Saved), StartError> {
        config.check()?;
        let until = Instant::now() + patience;
        loop {
            match StateFile::open_alone(&config.state_file, Self::first(config)) {
                Err(StateFileError::InUse { .. }) if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                opened => return Ok(opened?),
            }
        }
    }

    /// What a new state file says.
    pub(crate) const fn first(config: &Config) -> Saved {
        Saved { route: config.initial_route, epoch: 0 }
    }

    pub(crate) async fn begin(
        config: Config,
        state: (StateFile, Saved),
        mut inheritance: Option<Inheritance>,
    ) -> Result<Self, StartError> {
        let shared = Self::assemble(config, state)?;
        let (threads, listeners) = (shared.config.threads(), shared.config.tcp().count() + 1);
        let room = listeners * most_connections(&shared);
        let (shards, entrance) = Shards::start(threads, room, &shared).map_err(StartError::Threads)?;
        let mut proxy = Self {
            shared,
            tasks: JoinSet::new(),
            doors: JoinSet::new(),
            shards: Some(shards),
            entrance,
            stop: watch::Sender::new(false),
            files: Vec::new(),
            addresses: Vec::new(),
            readers: Vec::new(),
            console: Vec::new(),
            socket: None,
            metrics: None,
        };
        let mut find = |name: &Name| inheritance.as_mut().and_then(|inherited| inherited.socket(name));
        let metrics = proxy.listen_for_metrics(&mut find).await?;
        let mut listeners = proxy.listen(&mut find).await?;
        let control = proxy.succeed(inheritance, &mut listeners).await?;
        proxy.files.extend(proxy.socket.clone());
        if let Some(control) = control {
            proxy.files.push(takeover::socket_beside(&proxy.shared.config.state_file));
            let (shared, entrance) = (Arc::clone(&proxy.shared), Arc::clone(&proxy.entrance));
            proxy.doors.spawn(takeover::offer(shared, entrance, control, proxy.stop.clone()));
        }
        if let Some(draining) = takeover::wait_for_draining(&proxy.shared) {
            proxy.tasks.spawn(draining);
        }
        if let Some(listener) = metrics {
            let shared = Arc::clone(&proxy.shared);
            proxy.tasks.spawn(metrics::listen(shared, listener, proxy.stop.subscribe()));
        }
        for listener in listeners {
            proxy.doors.spawn(accept(proxy.door(), listener, proxy.stop.subscribe()));
        }
        proxy.keep();
        Ok(proxy)
    }

    /// Looks whether [`Proxy::start`] could: does all of it but listening, so that no client ever comes.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn check(config: Config) -> Result<(), StartError> {
        config.check()?;
        let state = StateFile::open(&config.state_file, Self::first(&config))?;
        let shared = Self::assemble(config, state)?;
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

    /// `config` is checked.
    pub(crate) fn assemble(
        config: Config,
        (file, saved): (StateFile, Saved),
    ) -> Result<Arc<Shared>, StartError> {
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
            takeover: Takeover::default(),
            config,
            reloading: Mutex::default(),
        }))
    }

    async fn listen(
        &mut self,
        find: &mut impl FnMut(&Name) -> Option<OwnedFd>,
    ) -> Result<Vec<Listener>, StartError> {
        let mut listeners = Vec::new();
        for (address, comers) in self.shared.config.tcp().collect::<Vec<_>>() {
            let (listener, bound) = self.bind(address, find).await?;
            match comers {
                Comers::Clients | Comers::Balancers => self.addresses.push(bound),
                Comers::Readers => self.readers.push(bound),
                Comers::Operators => self.console.push(bound),
            }
            listeners.push(Listener::Tcp { listener, comers });
        }
        if let Some(path) = socket_path(&self.shared.config) {
            let inherited = find(&Name::Unix(path.clone()));
            listeners.push(self.listen_at(path, inherited)?);
        }
        Ok(listeners)
    }

    /// Listens on a path, by the socket that was inherited for it or a new one.
    pub(crate) fn listen_at(
        &mut self,
        path: PathBuf,
        inherited: Option<OwnedFd>,
    ) -> Result<Listener, StartError> {
        let failed = |source| StartError::Listen { address: path.display().to_string(), source };
        let listener = if let Some(inherited) = inherited {
            UnixListener::from_std(inherited.into()).map_err(failed)?
        } else {
            free(&path)?;
            // A socket that nobody answers is left over from a process that was killed.
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).map_err(failed)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).map_err(failed)?;
            listener
        };
        self.offers(Name::Unix(path.clone()), &listener).map_err(failed)?;
        self.socket = Some(path);
        Ok(Listener::Unix { listener, us: rustix::process::geteuid().as_raw() })
    }

    async fn listen_for_metrics(
        &mut self,
        find: &mut impl FnMut(&Name) -> Option<OwnedFd>,
    ) -> Result<Option<TcpListener>, StartError> {
        let Some(address) = self.shared.config.metrics else { return Ok(None) };
        let (listener, bound) = self.bind(address, find).await?;
        self.metrics = Some(bound);
        Ok(Some(listener))
    }

    /// Listens on an address, by the socket that was inherited for it or a new one.
    async fn bind(
        &self,
        address: SocketAddr,
        find: &mut impl FnMut(&Name) -> Option<OwnedFd>,
    ) -> Result<(TcpListener, SocketAddr), StartError> {
        let failed = |source| StartError::Listen { address: address.to_string(), source };
        let name = Name::Tcp(address);
        let listener = match find(&name) {
            Some(inherited) => TcpListener::from_std(inherited.into()).map_err(failed)?,
            None => TcpListener::bind(address).await.map_err(failed)?,
        };
        self.offers(name, &listener).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        Ok((listener, bound))
    }

    /// Keeps a listening socket for who takes over from us.
    fn offers(&self, name: Name, listener: &impl AsFd) -> std::io::Result<()> {
        let socket = listener.as_fd().try_clone_to_owned()?;
        self.shared.takeover.listens(name, socket);
        Ok(())
    }

    fn door(&self) -> Door {
        Door::new(&self.entrance, most_connections(&self.shared))
    }

    fn keep(&mut self) {
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
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.shared.takeover.are_lent() {
            return;
        }
        for path in &self.files {
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
