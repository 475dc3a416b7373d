//! Where one server is and how to log in there: the settings libpq would use, read from a URI or `key=value` text, a
//! service file, the environment and a password file. Opens no connection and prints no password.

mod environment;
mod keyvalue;
mod keyword;
mod passfile;
mod render;
mod service;
mod uri;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use environment::Environment;
use keyword::Settings;
use passfile::PassLine;

use crate::Password;

/// How much TLS protects the connection (PostgreSQL docs, "SSL Support: Protection Provided in Different Modes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only if the server insists; treated as [`SslMode::Prefer`], which is never weaker.
    Allow,
    /// TLS if the server can.
    Prefer,
    /// TLS, certificate not looked at unless a root certificate file exists.
    Require,
    /// TLS, certificate chain checked, host name not.
    VerifyCa,
    /// TLS, certificate chain and host name checked.
    VerifyFull,
}

impl SslMode {
    const NAMES: [(SslMode, &'static str); 6] = [
        (SslMode::Disable, "disable"),
        (SslMode::Allow, "allow"),
        (SslMode::Prefer, "prefer"),
        (SslMode::Require, "require"),
        (SslMode::VerifyCa, "verify-ca"),
        (SslMode::VerifyFull, "verify-full"),
    ];

    /// libpq's spelling.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(mode, _)| *mode == self).map_or("prefer", |(_, name)| name)
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, n)| *n == name).map(|(mode, _)| *mode)
    }
}

/// Whether SCRAM must be bound to the TLS channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelBinding {
    Disable,
    Prefer,
    Require,
}

/// What is wrong with connection settings. Names the key or file, never a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnInfoError {
    /// Not a key that libpq knows.
    #[error("connection setting `{0}` is not known")]
    UnknownKey(String),
    /// A key that libpq knows, with a meaning that this program cannot honour.
    #[error("connection setting `{0}` is not supported")]
    Unsupported(String),
    /// The text does not follow the grammar.
    #[error("connection string: {0}")]
    Syntax(String),
    /// The value of a key makes no sense.
    #[error("connection setting `{key}`: `{value}` is not {expected}")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What it would have to be.
        expected: &'static str,
    },
    /// Several hosts: which of them is meant would be decided anew at each connection.
    #[error("connection setting `{0}` names several hosts; exactly one server must be named")]
    SeveralHosts(String),
    /// A service that no service file defines, or a service file that cannot be read.
    #[error("service `{service}`: {message}")]
    Service {
        /// The service's name.
        service: String,
        /// What is wrong.
        message: String,
    },
    /// A certificate or key file that cannot be used.
    #[error("{what} {path}: {message}")]
    File {
        /// What the file is for.
        what: &'static str,
        /// The file.
        path: String,
        /// What is wrong.
        message: String,
    },
}

/// The root certificates to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RootCert {
    /// libpq's default: `~/.postgresql/root.crt` if it exists.
    Default(Option<PathBuf>),
    /// A file that must exist.
    File(PathBuf),
    /// The operating system's store (`sslrootcert=system`).
    System,
}

/// The settings of one server. `Debug` and `Display` leave the password out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnInfo {
    pub(crate) host: String,
    pub(crate) hostaddr: Option<IpAddr>,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) dbname: String,
    pub(crate) password: Option<Password>,
    passfile: Vec<PassLine>,
    pub(crate) options: Option<String>,
    pub(crate) connect_timeout: Duration,
    pub(crate) sslmode: SslMode,
    pub(crate) ssl_direct: bool,
    pub(crate) rootcert: RootCert,
    pub(crate) sslcert: Option<PathBuf>,
    pub(crate) sslkey: Option<PathBuf>,
    pub(crate) channel_binding: ChannelBinding,
    pub(crate) target_session_attrs: Option<String>,
    pub(crate) keepalives: Vec<(&'static str, u64)>,
}

impl ConnInfo {
    /// Used when nothing gives a `connect_timeout`; libpq would wait for ever.
    const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

    /// Reads a URI (`postgresql://..`) or `key=value` text; what it leaves out comes from the service file, the `PG*`
    /// environment and libpq's defaults, in this order.
    pub fn parse(text: &str) -> Result<Self, ConnInfoError> {
        Self::parse_in(text, &Environment::of_process())
    }

    /// As [`ConnInfo::parse`] with a given environment.
    pub fn parse_in(text: &str, env: &Environment) -> Result<Self, ConnInfoError> {
        let trimmed = text.trim();
        let given = if uri::is_uri(trimmed) { uri::parse(trimmed)? } else { keyvalue::parse(trimmed)? };
        Settings::resolve(given, env)?.into_conninfo(env)
    }

    /// A server at `host` (a name, an address, or a socket directory that begins with `/`), everything else by default
    /// and nothing from the environment.
    pub fn at(host: impl Into<String>, port: u16, user: impl Into<String>) -> Self {
        let user = user.into();
        Self {
            host: host.into(),
            hostaddr: None,
            port,
            dbname: user.clone(),
            user,
            password: None,
            passfile: Vec::new(),
            options: None,
            connect_timeout: Self::DEFAULT_CONNECT_TIMEOUT,
            sslmode: SslMode::Prefer,
            ssl_direct: false,
            rootcert: RootCert::Default(None),
            sslcert: None,
            sslkey: None,
            channel_binding: ChannelBinding::Prefer,
            target_session_attrs: None,
            keepalives: Vec::new(),
        }
    }

    /// The same server with this password.
    pub fn with_password(mut self, password: Password) -> Self {
        self.password = Some(password);
        self
    }

    /// The same server, logging in as `user`; passwords of another user are forgotten.
    pub fn with_user(mut self, user: impl Into<String>) -> Self {
        let user = user.into();
        if user != self.user {
            self.password = None;
            self.user = user;
        }
        self
    }

    /// The same settings for another default database.
    pub fn with_database(mut self, dbname: impl Into<String>) -> Self {
        self.dbname = dbname.into();
        self
    }

    /// The same settings for another address, e.g. the one by which the other server reaches this one.
    pub fn with_address(mut self, host: impl Into<String>, port: u16) -> Self {
        self.host = host.into();
        self.hostaddr = None;
        self.port = port;
        self
    }

    /// This way, for who logs in to a database as at `login`: its role, password and options there. Address and TLS are the way's.
    pub fn for_login(self, login: &ConnInfo, database: &str) -> Self {
        Self {
            // A password file has a line for the server's address, and not for that of what stands before it.
            password: login.password_for(database),
            user: login.user.clone(),
            dbname: database.to_owned(),
            options: login.options.clone(),
            ..self
        }
    }

    /// Whether what is said crosses no network: by a Unix socket, or to this very machine.
    pub fn is_local(&self) -> bool {
        let by_name = || match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        };
        self.is_socket() || self.hostaddr.map_or_else(by_name, |address| address.is_loopback())
    }

    /// Host name, address, or socket directory.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address to connect to, where it is given beside the host name (`hostaddr`).
    pub fn hostaddr(&self) -> Option<IpAddr> {
        self.hostaddr
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The file with the root certificates that the server's is verified by: the one given, or libpq's default, which
    /// `sslmode=require` only heeds where it exists. `None` when nothing is verified, or by the system's store.
    pub fn sslrootcert(&self) -> Option<&Path> {
        let path = match &self.rootcert {
            RootCert::File(path) | RootCert::Default(Some(path)) => path,
            RootCert::Default(None) | RootCert::System => return None,
        };
        let heeded = match self.sslmode {
            SslMode::VerifyCa | SslMode::VerifyFull => true,
            SslMode::Require => matches!(self.rootcert, RootCert::File(_)) || path.exists(),
            SslMode::Disable | SslMode::Allow | SslMode::Prefer => false,
        };
        heeded.then_some(path)
    }

    /// The certificate shown to the server, and its key, where both are given or at libpq's default places.
    pub fn client_certificate(&self) -> Option<(&Path, &Path)> {
        self.sslcert.as_deref().zip(self.sslkey.as_deref())
    }

    /// Whether TLS begins with the first byte (`sslnegotiation=direct`).
    pub fn ssl_direct(&self) -> bool {
        self.ssl_direct
    }

    /// The role that logs in.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The default database.
    pub fn database(&self) -> &str {
        &self.dbname
    }

    /// The TLS mode asked for.
    pub fn sslmode(&self) -> SslMode {
        self.sslmode
    }

    /// Whether the server is reached by a Unix socket.
    pub fn is_socket(&self) -> bool {
        self.host.starts_with('/') && self.hostaddr.is_none()
    }

    /// `host:port`, or the socket's path; for messages.
    pub fn address(&self) -> String {
        let host = self.hostaddr.map_or_else(|| self.host.clone(), |a| a.to_string());
        match host.as_bytes() {
            [b'/', ..] => format!("{host}/.s.PGSQL.{}", self.port),
            bytes if bytes.contains(&b':') => format!("[{host}]:{}", self.port),
            _ => format!("{host}:{}", self.port),
        }
    }

    /// The password for a database: the one given, else the first matching line of the password file.
    pub fn password_for(&self, database: &str) -> Option<Password> {
        self.password.clone().or_else(|| {
            let host = match (self.host.as_str(), self.hostaddr) {
                ("/var/run/postgresql" | "/tmp", None) => "localhost".to_owned(),
                (host, _) => host.to_owned(),
            };
            let line = self.passfile.iter().find(|l| l.matches(&host, self.port, database, &self.user))?;
            Some(line.password.clone())
        })
    }
}

impl FromStr for ConnInfo {
    type Err = ConnInfoError;

    fn from_str(text: &str) -> Result<Self, ConnInfoError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;
