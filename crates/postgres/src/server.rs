//! One server by name: opens sessions to it and keeps a few warm. Knows how to connect, not what is asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_postgres::config::{
    ChannelBinding as DriverBinding, Config, SslMode as DriverSslMode, SslNegotiation, TargetSessionAttrs,
};

use crate::conninfo::{ChannelBinding, ConnInfo, ConnInfoError, SslMode};
use crate::error::Result;
use crate::purpose::Purpose;
use crate::session::Session;
use crate::tls::{self, Tls};

/// At most so many sessions are kept warm per server; further ones are opened, used and closed.
const WARM_LIMIT: usize = 128;

/// One server: where it is, and a name for messages. Clones share the warm sessions.
#[derive(Debug, Clone)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    conninfo: ConnInfo,
    tls: Tls,
    warm: Mutex<HashMap<String, Session>>,
}

impl Server {
    /// Names a server. Reads the certificate files, opens no connection.
    pub fn new(name: impl Into<String>, conninfo: ConnInfo) -> Result<Self, ConnInfoError> {
        let tls = tls::build(&conninfo)?;
        Ok(Self(Arc::new(Inner { name: name.into(), conninfo, tls, warm: Mutex::default() })))
    }

    /// The name for messages.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where it is.
    pub fn conninfo(&self) -> &ConnInfo {
        &self.0.conninfo
    }

    pub(crate) fn tls(&self) -> &Tls {
        &self.0.tls
    }

    /// Opens a session of its own. Bounded by the settings' `connect_timeout`.
    pub async fn connect(&self, database: &str, purpose: Purpose) -> Result<Session> {
        Session::open(self, database, purpose).await
    }

    /// The shared control session of a database, opened at first use and again when it was lost. Calls of several users
    /// are answered one after the other; transactions that span calls are refused on it.
    pub async fn warm(&self, database: &str) -> Result<Session> {
        let mut warm = self.0.warm.lock().await;
        if let Some(session) = warm.get(database).filter(|s| !s.is_closed()) {
            return Ok(session.clone());
        }
        let session = self.connect(database, Purpose::control("control")).await?.shared();
        warm.retain(|_, s| !s.is_closed());
        if warm.len() < WARM_LIMIT {
            warm.insert(database.to_owned(), session.clone());
        }
        Ok(session)
    }

    /// Closes the warm sessions.
    pub async fn cool(&self) {
        self.0.warm.lock().await.clear();
    }

    /// Closes the warm sessions one by one, for a server that serves others: processes that exit all at once take the
    /// processor from them.
    pub async fn part(&self, pause: Duration) {
        loop {
            let one = {
                let mut warm = self.0.warm.lock().await;
                let database = warm.keys().next().cloned();
                database.and_then(|database| warm.remove(&database))
            };
            let Some(session) = one else { return };
            drop(session);
            tokio::time::sleep(pause).await;
        }
    }

    /// The driver's settings for one session.
    pub(crate) fn driver_config(&self, database: &str, purpose: &Purpose) -> Config {
        let info = &self.0.conninfo;
        let mut config = self.plain_config(database, purpose);
        let mut options = info.options.clone().unwrap_or_default();
        for (name, value) in purpose.startup_settings() {
            options.push_str(&format!(" -c {name}={value}"));
        }
        config.options(options.trim_start());
        config.target_session_attrs(match info.target_session_attrs.as_deref() {
            Some("read-write" | "primary") => TargetSessionAttrs::ReadWrite,
            Some("read-only" | "standby") => TargetSessionAttrs::ReadOnly,
            _ => TargetSessionAttrs::Any,
        });
        config
    }

    /// The driver's settings for a connection on which nothing is set and no SQL is said.
    pub(crate) fn plain_config(&self, database: &str, purpose: &Purpose) -> Config {
        let info = &self.0.conninfo;
        let mut config = Config::new();
        config.user(&info.user).dbname(database).application_name(purpose.application_name());
        config.host(&info.host).port(info.port).connect_timeout(info.connect_timeout);
        if let Some(addr) = info.hostaddr {
            config.hostaddr(addr);
        }
        if let Some(password) = info.password_for(database) {
            config.password(password.reveal());
        }
        config.ssl_mode(match (self.tls(), info.sslmode) {
            (Tls::Off, _) | (_, SslMode::Disable) => DriverSslMode::Disable,
            (_, SslMode::Allow | SslMode::Prefer) => DriverSslMode::Prefer,
            (_, SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => DriverSslMode::Require,
        });
        if info.ssl_direct {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        config.channel_binding(match info.channel_binding {
            ChannelBinding::Disable => DriverBinding::Disable,
            ChannelBinding::Prefer => DriverBinding::Prefer,
            ChannelBinding::Require => DriverBinding::Require,
        });
        keepalives(&mut config, &info.keepalives);
        config
    }
}

/// A peer that vanished must be noticed: without values of the user, after 30 s of silence and 3 probes.
fn keepalives(config: &mut Config, given: &[(&'static str, u64)]) {
    let value = |key: &str, default: u64| given.iter().find(|(k, _)| *k == key).map_or(default, |(_, v)| *v);
    config.keepalives(value("keepalives", 1) != 0);
    config.keepalives_idle(Duration::from_secs(value("keepalives_idle", 30)));
    config.keepalives_interval(Duration::from_secs(value("keepalives_interval", 10)));
    config.keepalives_retries(u32::try_from(value("keepalives_count", 3)).unwrap_or(3));
    config.tcp_user_timeout(Duration::from_millis(value("tcp_user_timeout", 60_000)));
}
