//! Owns the proxy's own configuration file (TOML): listeners, the two routes, login policy, limits.
//! Refuses to know the deployment's configuration: whoever drives the proxy writes this file for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::proxy_protocol::Network;
use crate::route::Side;

mod admin;
mod limits;
mod pool;
mod reads;
mod service;

pub use admin::AdminConfig;
pub use limits::Limits;
pub use pool::PoolConfig;
pub use reads::{ReadFallback, ReadsConfig};
pub use service::{Service, ServiceConfig};

/// The whole configuration. Unknown keys are refused.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// TCP addresses to listen on. Port 0 takes a free port.
    #[serde(default)]
    pub listen: Vec<SocketAddr>,
    /// Further TCP addresses, for a load balancer that says in the PROXY protocol whose connections it passes on.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocolConfig,
    /// Directory of the Unix socket, named `.s.PGSQL.<unix_port>` as libpq expects.
    #[serde(default)]
    pub unix_dir: Option<PathBuf>,
    /// The port number in the name of the Unix socket.
    #[serde(default = "default_unix_port")]
    pub unix_port: u16,
    /// Where route and epoch survive the process.
    pub state_file: PathBuf,
    /// The route taken when there is no state file yet.
    #[serde(default = "default_route")]
    pub initial_route: Side,
    /// The side named blue.
    pub blue: ServerConfig,
    /// The side named green. May be absent until it exists: then it cannot be warmed or repointed to.
    pub green: Option<ServerConfig>,
    /// Who reads from replicas, and from which.
    #[serde(default)]
    pub reads: ReadsConfig,
    /// How clients prove who they are.
    #[serde(default)]
    pub auth: AuthConfig,
    /// Who may use the console, and where, besides the proxy's own operating-system user.
    #[serde(default)]
    pub admin: AdminConfig,
    /// The certificate shown to clients; without it `SSLRequest` is answered `N`.
    pub tls: Option<TlsConfig>,
    /// Where Prometheus finds the metrics, by plain HTTP at `/metrics`. Port 0 takes a free port; nowhere when absent. Nobody is
    /// asked who they are: listen where only those can connect who may know.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// Threads that sessions live on; half as many as there are processors when absent, since servers and clients want
    /// theirs. One relays some ten thousand transactions a second.
    #[serde(default)]
    pub threads: Option<usize>,
    /// Server connections that are used again.
    #[serde(default)]
    pub pool: PoolConfig,
    /// Every bound the proxy keeps.
    #[serde(default)]
    pub limits: Limits,
}

/// The most threads that sessions may live on.
const MAX_THREADS: usize = 256;

/// Listeners on which every connection begins with a PROXY header of version 2.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyProtocolConfig {
    /// TCP addresses to listen on. Port 0 takes a free port.
    pub listen: Vec<SocketAddr>,
    /// Networks of the load balancers, such as `10.0.0.0/8`. Connections from elsewhere are closed: whoever may send a header
    /// can claim any address.
    pub from: Vec<Network>,
}

/// Who comes to a TCP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comers {
    /// Clients.
    Clients,
    /// Clients who only read.
    Readers,
    /// Load balancers, which say whose connections they pass on.
    Balancers,
    /// Those who want the console.
    Operators,
}

/// One server the proxy can open upstreams to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Host name, address, or (beginning with `/`) the directory of a Unix socket.
    pub host: String,
    /// TCP port, or the number in the name of the Unix socket.
    #[serde(default = "default_server_port")]
    pub port: u16,
    /// TLS policy towards the server, in libpq's words. Ignored on a Unix socket, as libpq does.
    #[serde(default)]
    pub sslmode: SslMode,
    /// PEM file with the roots for `verify-ca` and `verify-full`; the system's own when absent.
    #[serde(default)]
    pub sslrootcert: Option<PathBuf>,
    /// PEM file with the certificate chain shown to the server, leaf first; with `sslkey`.
    #[serde(default)]
    pub sslcert: Option<PathBuf>,
    /// PEM file with its private key.
    #[serde(default)]
    pub sslkey: Option<PathBuf>,
    /// How TLS begins.
    #[serde(default)]
    pub sslnegotiation: SslNegotiation,
    /// Its physical replicas, `host:port` each, for readers; with the same TLS settings.
    #[serde(default)]
    pub replicas: Vec<String>,
}

/// libpq's `sslnegotiation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslNegotiation {
    /// The server is asked first.
    #[default]
    Postgres,
    /// From the first byte on, which saves a round trip. Servers since 17; nothing else is tried with older ones.
    Direct,
}

/// libpq's `sslmode` (PostgreSQL documentation, section "SSL Support").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS when the server offers it, no verification.
    #[default]
    Prefer,
    /// TLS or nothing, no verification.
    Require,
    /// TLS, the chain is verified.
    VerifyCa,
    /// TLS, chain and host name are verified.
    VerifyFull,
}

impl SslMode {
    /// As libpq spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// How clients log in.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// What is asked of a client.
    pub method: AuthMethod,
    /// Let cleartext passwords over an unencrypted TCP connection pass. Off unless said.
    pub cleartext_without_tls: bool,
    /// The role that looks up verifiers on the active side. These four keys are for both sides, unless a side has its own.
    pub service_user: String,
    /// The database it connects to.
    pub service_database: String,
    /// Environment variable that holds its password.
    pub service_password_env: Option<String>,
    /// File that holds its password (first line).
    pub service_password_file: Option<PathBuf>,
    /// Query with one parameter, the user's name, that answers `(rolname, rolpassword)`; the default reads `pg_authid`.
    pub query: Option<String>,
    /// How long a verifier is believed without asking again, in milliseconds; 0, the default, asks at every login, and logins of
    /// one user that come together share a question. With SCRAM a believed verifier refuses the first login by a password
    /// that was changed within that time, and not the next one: its proof is bound to the salt of the old verifier, and
    /// the protocol allows one exchange per connection. That there is no such user is believed for a second.
    pub cache_ms: u64,
    /// The largest SCRAM iteration count accepted from a server or verifier.
    pub max_scram_iterations: u32,
    /// What is different on blue.
    pub blue: ServiceConfig,
    /// What is different on green.
    pub green: ServiceConfig,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            method: AuthMethod::Verifier,
            cleartext_without_tls: false,
            service_user: "pgteal".into(),
            service_database: "postgres".into(),
            service_password_env: None,
            service_password_file: None,
            query: None,
            cache_ms: 0,
            max_scram_iterations: 1_000_000,
            blue: ServiceConfig::default(),
            green: ServiceConfig::default(),
        }
    }
}

/// What a client is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthMethod {
    /// Nothing; the server behind must trust the proxy as well.
    Trust,
    /// What fits the verifier stored on the server: SCRAM-SHA-256 or md5.
    #[default]
    Verifier,
    /// The password itself, checked by logging in with it.
    Cleartext,
    /// A certificate whose common name is the user's name, and no password. The server behind must take the proxy's word for
    /// it: it trusts the proxy's address, or maps the proxy's own certificate (`sslcert`) to every user in `pg_ident.conf`.
    Cert,
}

/// The certificate and key shown to clients, both PEM; read again at SIGHUP and by the console's `RELOAD`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Refuse clients that do not ask for TLS (on TCP).
    #[serde(default)]
    pub required: bool,
    /// PEM file with the roots of clients' certificates. Without it clients are not asked for one.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// What clients' certificates are needed for.
    #[serde(default)]
    pub clientcert: ClientCert,
}

/// What is asked of a client's certificate, besides the login; `clientcert` of a server's `pg_hba.conf`, and as there not on a
/// Unix socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCert {
    /// It may be left out; one that is shown must be valid.
    #[default]
    Optional,
    /// It must be there.
    VerifyCa,
    /// It must be there, and its common name is the user's name.
    VerifyFull,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("{key}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, parsed, or when a value is out of range.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        config.check()?;
        Ok(config)
    }

    /// Checks the values that types alone cannot.
    ///
    /// # Errors
    /// Names the first key whose value makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, reason: &str| Err(ConfigError::Value { key, reason: reason.into() });
        if !self.proxy_protocol.listen.is_empty() && self.proxy_protocol.from.is_empty() {
            return bad("proxy_protocol.from", "is not given: nobody could connect there");
        }
        if self.tcp().all(|(_, comers)| comers == Comers::Operators) && self.unix_dir.is_none() {
            return bad("listen", "neither `listen` nor `unix_dir` is given: nobody could connect");
        }
        if self.initial_route == Side::Green && self.green.is_none() {
            return bad("initial_route", "is green, but there is no [green]");
        }
        for server in [Some(&self.blue), self.green.as_ref()].into_iter().flatten() {
            server.check()?;
        }
        self.pool.check()?;
        self.reads.check(self)?;
        let client_ca = self.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
        if self.auth.method == AuthMethod::Cert && client_ca.is_none() {
            return bad("auth.method", "is \"cert\", but there is no client_ca in [tls]");
        }
        if self.tls.as_ref().is_some_and(|tls| tls.clientcert != ClientCert::Optional) && client_ca.is_none()
        {
            return bad("tls.clientcert", "asks for certificates, but there is no client_ca");
        }
        self.admin.check(self.auth.method, self.admin_tls())?;
        if !(4096..=16 * 1024 * 1024).contains(&self.limits.buffer_bytes) {
            return bad("limits.buffer_bytes", "must lie between 4096 and 16777216");
        }
        if self.limits.max_packet_size < 4096 {
            return bad("limits.max_packet_size", "must be at least 4096");
        }
        if self.limits.max_clients == 0 || self.limits.warm_concurrency == 0 {
            return bad("limits", "max_clients and warm_concurrency must be at least 1");
        }
        if self.threads.is_some_and(|threads| !(1..=MAX_THREADS).contains(&threads)) {
            return bad("threads", "must lie between 1 and 256");
        }
        Ok(())
    }

    /// What is asked of clients' certificates.
    #[must_use]
    pub fn clientcert(&self) -> ClientCert {
        self.tls.as_ref().map(|tls| tls.clientcert).unwrap_or_default()
    }

    /// Threads that sessions live on.
    #[must_use]
    pub fn threads(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.threads.unwrap_or_else(|| processors() / 2).clamp(1, MAX_THREADS)
    }

    /// Every TCP address to listen on, and who comes there.
    pub fn tcp(&self) -> impl Iterator<Item = (SocketAddr, Comers)> {
        let at = |addresses: &[SocketAddr], comers| {
            let all: Vec<_> = addresses.iter().map(|address| (*address, comers)).collect();
            all.into_iter()
        };
        at(&self.listen, Comers::Clients)
            .chain(at(&self.reads.listen, Comers::Readers))
            .chain(at(&self.proxy_protocol.listen, Comers::Balancers))
            .chain(at(&self.admin.listen, Comers::Operators))
    }

    /// The certificate shown where only the console is.
    #[must_use]
    pub fn admin_tls(&self) -> Option<&TlsConfig> {
        self.admin.tls.as_ref().or(self.tls.as_ref())
    }

    /// The server of a side, if it is configured.
    #[must_use]
    pub const fn server(&self, side: Side) -> Option<&ServerConfig> {
        match side {
            Side::Blue => Some(&self.blue),
            Side::Green => self.green.as_ref(),
        }
    }
}

impl ServerConfig {
    fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, reason: &str| Err(ConfigError::Value { key, reason: reason.into() });
        if self.sslcert.is_some() != self.sslkey.is_some() {
            return bad("sslcert", "a certificate needs its sslkey, and a key its sslcert");
        }
        let weak = matches!(self.sslmode, SslMode::Disable | SslMode::Prefer);
        if self.sslnegotiation == SslNegotiation::Direct && weak {
            // As libpq says: such a mode would fall back to no TLS at all.
            return bad("sslnegotiation", "is \"direct\", which needs sslmode require or a stronger one");
        }
        Ok(())
    }
}

const fn default_unix_port() -> u16 {
    6432
}

const fn default_server_port() -> u16 {
    5432
}

const fn default_route() -> Side {
    Side::Blue
}

#[cfg(test)]
mod tests;
