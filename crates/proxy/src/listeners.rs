//! Owns the sockets that clients come in by: accepting, and how many connections each serves at once.
//! Refuses to know who comes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::config::{Comers, Config};
use crate::login::Peer;
use crate::proxy::StartError;
use crate::shards::{Accepted, Entrance};
use crate::shared::Shared;

/// The path of the Unix socket.
pub(crate) fn socket_path(config: &Config) -> Option<PathBuf> {
    let directory = config.unix_dir.as_ref()?;
    Some(directory.join(format!(".s.PGSQL.{}", config.unix_port)))
}

/// Whether nobody listens on a Unix socket of this path.
pub(crate) fn free(path: &Path) -> Result<(), StartError> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(StartError::Listen {
            address: path.display().to_string(),
            source: std::io::ErrorKind::AddrInUse.into(),
        }),
        Err(_) => Ok(()),
    }
}

/// What a listener hands its connections to, and how many more it may.
#[derive(Debug)]
pub(crate) struct Door {
    entrance: Arc<Entrance>,
    places: Arc<Semaphore>,
}

impl Door {
    pub(crate) fn new(entrance: &Arc<Entrance>, places: usize) -> Self {
        Self { entrance: Arc::clone(entrance), places: Arc::new(Semaphore::new(places)) }
    }

    /// A place for the next connection. Never refused: nobody closes the semaphore.
    async fn place(&self) -> std::io::Result<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.map_err(std::io::Error::other)
    }
}

/// What connections come in by.
#[derive(Debug)]
pub(crate) enum Listener {
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
pub(crate) async fn accept(door: Door, listener: Listener, mut stop: watch::Receiver<bool>) {
    let next = async || {
        let place = door.place().await?;
        let (connection, peer) = listener.next().await?;
        door.entrance.admit(connection, peer, place);
        Ok::<_, std::io::Error>(())
    };
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = next() => accepted,
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
pub(crate) fn most_connections(shared: &Shared) -> usize {
    shared.config.limits.max_clients + shared.config.limits.max_unauthenticated + 100
}
