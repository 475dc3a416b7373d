//! One server as something to connect to: address, `sslmode`, and the SSLRequest dance.
//! Owns sockets towards servers; refuses to know users.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgteal_wire::startup::SSL_REQUEST_PACKET;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{ServerConfig, SslMode, SslNegotiation};
use crate::stream::Stream;
use crate::tls::{ServerTls, TlsError};

/// A connection is probed after this silence, and this often.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// How long a server's machine may leave probes, or what was sent, without an acknowledgement.
const SILENCE: Duration = Duration::from_secs(60);

/// Why a server cannot be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// No connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Host and port, or the socket's path.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// TLS failed or its settings make no sense.
    #[error("{address}: {source}")]
    Tls {
        /// Host and port.
        address: String,
        /// What happened.
        source: TlsError,
    },
    /// `sslmode` wants TLS and the server has none.
    #[error("{address} does not offer TLS, which sslmode requires")]
    TlsRefused {
        /// Host and port.
        address: String,
    },
    /// The answer to SSLRequest is neither `S` nor `N`.
    #[error("{address} answered SSLRequest with byte 0x{byte:02x}")]
    Protocol {
        /// Host and port.
        address: String,
        /// The answer.
        byte: u8,
    },
}

#[derive(Debug, Clone)]
enum Address {
    Unix(PathBuf),
    Tcp(String, u16),
}

/// A server to connect to, with TLS settings read once.
#[derive(Debug, Clone)]
pub struct Target {
    address: Address,
    mode: SslMode,
    tls: Option<Arc<ServerTls>>,
    direct: bool,
    pub(super) max_scram_iterations: u32,
}

/// A connection on which nothing has been said yet but SSLRequest.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: Stream,
    /// tls-server-end-point data of the server's certificate, if there is TLS and the certificate has such a hash.
    pub end_point: Option<Vec<u8>>,
}

impl Target {
    /// Reads the settings and, where `sslmode` needs them, the root certificates.
    ///
    /// # Errors
    /// [`TargetError::Tls`].
    pub fn new(server: &ServerConfig, max_scram_iterations: u32) -> Result<Self, TargetError> {
        let unix = server.host.starts_with('/');
        let address = if unix {
            Address::Unix(PathBuf::from(&server.host).join(format!(".s.PGSQL.{}", server.port)))
        } else {
            Address::Tcp(server.host.clone(), server.port)
        };
        let direct = server.sslnegotiation == SslNegotiation::Direct;
        let mut target = Self { address, mode: server.sslmode, tls: None, direct, max_scram_iterations };
        if !unix && server.sslmode != SslMode::Disable {
            let tls = ServerTls::new(server).map(Arc::new);
            target.tls = Some(tls.map_err(|source| TargetError::Tls { address: target.shown(), source })?);
        }
        Ok(target)
    }

    /// Reads roots, certificate and key again, for connections from now on.
    ///
    /// # Errors
    /// [`TargetError::Tls`]; what was read before stays then.
    pub fn reload(&self) -> Result<(), TargetError> {
        let Some(tls) = &self.tls else { return Ok(()) };
        tls.reload().map_err(|source| TargetError::Tls { address: self.shown(), source })
    }

    /// Host and port, or the socket's path.
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.address {
            Address::Unix(path) => path.display().to_string(),
            Address::Tcp(host, port) => format!("{host}:{port}"),
        }
    }

    /// Connects, with TLS as `sslmode` says. The caller bounds the time.
    ///
    /// # Errors
    /// [`TargetError`].
    pub async fn connect(&self) -> Result<Connected, TargetError> {
        let failed = |source| TargetError::Connect { address: self.shown(), source };
        match &self.address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(failed)?;
                Ok(Connected { stream: Stream::Unix(stream), end_point: None })
            }
            Address::Tcp(host, port) => match &self.tls {
                None => Ok(Connected { stream: Stream::Tcp(self.dial(host, *port).await?), end_point: None }),
                Some(tls) => match self.secure(self.dial(host, *port).await?, tls).await {
                    // libpq's `prefer`: a server whose TLS does not work gets a second chance without.
                    Err(TargetError::Tls { .. }) if self.mode == SslMode::Prefer => {
                        Ok(Connected { stream: Stream::Tcp(self.dial(host, *port).await?), end_point: None })
                    }
                    result => result,
                },
            },
        }
    }

    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, TargetError> {
        let failed = |source| TargetError::Connect { address: self.shown(), source };
        let tcp = TcpStream::connect((host, port)).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        keep_alive(&tcp);
        Ok(tcp)
    }

    async fn secure(&self, mut tcp: TcpStream, tls: &ServerTls) -> Result<Connected, TargetError> {
        if self.direct {
            return self.handshake(tcp, tls).await;
        }
        let failed = |source| TargetError::Connect { address: self.shown(), source };
        tcp.write_all(&SSL_REQUEST_PACKET).await.map_err(failed)?;
        // One byte and no more: what was smuggled in behind it goes to the handshake and breaks it (CVE-2021-23222).
        match tcp.read_u8().await.map_err(failed)? {
            b'S' => self.handshake(tcp, tls).await,
            b'N' if self.mode == SslMode::Prefer => {
                Ok(Connected { stream: Stream::Tcp(tcp), end_point: None })
            }
            b'N' => Err(TargetError::TlsRefused { address: self.shown() }),
            byte => Err(TargetError::Protocol { address: self.shown(), byte }),
        }
    }

    async fn handshake(&self, tcp: TcpStream, tls: &ServerTls) -> Result<Connected, TargetError> {
        let (stream, end_point) = tls
            .connect(tcp, self.direct)
            .await
            .map_err(|source| TargetError::Tls { address: self.shown(), source })?;
        Ok(Connected { stream, end_point })
    }
}

/// A server whose machine vanished is noticed: by probes where nothing is said, and by its silence to what was sent.
fn keep_alive(tcp: &TcpStream) {
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY);
    let socket = SockRef::from(tcp);
    let set = socket.set_tcp_keepalive(&probes).and_then(|()| socket.set_tcp_user_timeout(Some(SILENCE)));
    if let Err(error) = set {
        tracing::debug!(%error, "a server's socket options");
    }
}
