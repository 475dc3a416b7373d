//! Verifiers by a query on the active side, over one connection of the proxy's service role.
//! Owns that connection and a small memory of answers; refuses to know what the verifiers are used for.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::BytesMut;
use pgteal_wire::frame;
use pgteal_wire::message::frontend::{put_bind, put_execute, put_parse, put_sync};
use pgteal_wire::message::report::Fields;
use pgteal_wire::message::rows::parse_data_row;
use pgteal_wire::message::tag::back;
use pgteal_wire::startup::{ProtocolVersion, StartupMessage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zeroize::Zeroize as _;

use super::client::shown;
use super::credentials::Credentials;
use super::lookup::{LookupError, StoredVerifier, VerifierLookup};
use super::target::Target;
use super::upstream::{self, Upstream};
use crate::config::AuthConfig;

/// Users remembered at most; beyond it the oldest is forgotten.
const MAX_REMEMBERED: usize = 1024;
/// Longest answer read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// What is asked unless configured otherwise: users that may log in now. `$1` is the user's name.
pub const DEFAULT_QUERY: &str = "SELECT rolname, rolpassword FROM pg_catalog.pg_authid \
    WHERE rolname = $1 AND rolcanlogin AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now())";

/// The service role's password cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServicePasswordError {
    /// The file cannot be read.
    #[error("service password file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The environment variable is not set.
    #[error("service password: environment variable {0} is not set")]
    Env(String),
}

/// Reads the service role's credentials as configured: environment variable, first line of a file, or none.
///
/// # Errors
/// [`ServicePasswordError`].
pub fn service_credentials(config: &AuthConfig) -> Result<Credentials, ServicePasswordError> {
    if let Some(name) = &config.service_password_env {
        let password = std::env::var(name).map_err(|_| ServicePasswordError::Env(name.clone()))?;
        return Ok(Credentials::password(password));
    }
    let Some(path) = &config.service_password_file else { return Ok(Credentials::None) };
    let mut text = std::fs::read_to_string(path)
        .map_err(|source| ServicePasswordError::File { path: path.clone(), source })?;
    let credentials = Credentials::password(text.lines().next().unwrap_or_default());
    text.zeroize();
    Ok(credentials)
}

/// The lookup on the active side.
#[derive(Debug)]
pub struct AuthQuery {
    server: ArcSwap<Target>,
    startup: StartupMessage,
    credentials: Credentials,
    query: String,
    believed: Duration,
    limit: Duration,
    connection: tokio::sync::Mutex<Option<Connection>>,
    remembered: Mutex<HashMap<Vec<u8>, (Instant, StoredVerifier)>>,
}

#[derive(Debug)]
struct Connection {
    upstream: Upstream,
    /// The server it goes to, by identity: a repoint makes another one.
    server: Arc<Target>,
}

impl AuthQuery {
    /// A lookup on `server`. `limit` bounds one lookup, the opening of its connection included.
    #[must_use]
    pub fn new(config: &AuthConfig, credentials: Credentials, server: Arc<Target>, limit: Duration) -> Self {
        let startup = StartupMessage::new(
            ProtocolVersion::V3_0,
            [
                ("user", config.service_user.as_str()),
                ("database", config.service_database.as_str()),
                ("application_name", "pgteal/auth"),
                // The name in a startup packet has no encoding: compare the bytes.
                ("client_encoding", "SQL_ASCII"),
            ],
        );
        Self {
            server: ArcSwap::new(server),
            startup,
            credentials,
            query: config.query.clone().unwrap_or_else(|| DEFAULT_QUERY.to_owned()),
            believed: Duration::from_millis(config.cache_ms),
            limit,
            connection: tokio::sync::Mutex::new(None),
            remembered: Mutex::new(HashMap::new()),
        }
    }

    /// Asks another server from now on: the active side has changed.
    pub fn set_server(&self, server: Arc<Target>) {
        self.server.store(server);
        self.memory().clear();
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, (Instant, StoredVerifier)>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recall(&self, user: &[u8]) -> Option<StoredVerifier> {
        let mut memory = self.memory();
        let (at, verifier) = memory.get(user)?;
        if at.elapsed() < self.believed {
            return Some(verifier.clone());
        }
        memory.remove(user);
        None
    }

    fn remember(&self, user: &[u8], verifier: &StoredVerifier) {
        if self.believed.is_zero() {
            return;
        }
        let mut memory = self.memory();
        if memory.len() >= MAX_REMEMBERED && !memory.contains_key(user) {
            let oldest = memory.iter().min_by_key(|(_, (at, _))| *at).map(|(name, _)| name.clone());
            if let Some(oldest) = oldest {
                memory.remove(&oldest);
            }
        }
        memory.insert(user.to_vec(), (Instant::now(), verifier.clone()));
    }

    async fn ask(&self, user: &[u8]) -> Result<Option<StoredVerifier>, String> {
        let mut slot = self.connection.lock().await;
        let server = self.server.load_full();
        // Taken out while in use: a lookup that is given up halfway must not leave half an answer behind.
        let kept = slot.take().filter(|kept| Arc::ptr_eq(&kept.server, &server));
        if let Some(mut kept) = kept {
            // The server may have closed an idle connection: then, and only then, once more on a new one.
            if let Ok(answer) = self.run(&mut kept.upstream, user).await {
                *slot = Some(kept);
                return answer;
            }
        }
        let upstream = upstream::log_in(&server, &self.startup, &self.credentials, self.limit).await;
        let mut upstream = upstream.map_err(|error| error.to_string())?;
        let answer = self.run(&mut upstream, user).await.map_err(|error| error.to_string())?;
        *slot = Some(Connection { upstream, server });
        answer
    }

    /// One round trip. The outer error is a lost connection, the inner one the server's refusal.
    async fn run(
        &self,
        upstream: &mut Upstream,
        user: &[u8],
    ) -> io::Result<Result<Option<StoredVerifier>, String>> {
        let mut out = BytesMut::new();
        put_parse(&mut out, b"", self.query.as_bytes());
        put_bind(&mut out, b"", &[Some(user)]);
        put_execute(&mut out);
        put_sync(&mut out);
        upstream.stream.write_all(&out).await?;
        upstream.stream.flush().await?;
        let mut answer = Ok(None);
        loop {
            let message = frame::take(&mut upstream.leftover, MAX_ANSWER)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let Some(message) = message else {
                if upstream.stream.read_buf(&mut upstream.leftover).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            };
            match message.tag {
                back::DATA_ROW if answer.is_ok() => answer = verifier_of(message.body(), user),
                back::ERROR => answer = Err(refusal(message.body())),
                back::READY_FOR_QUERY => return Ok(answer),
                _ => {}
            }
        }
    }
}

fn refusal(body: &[u8]) -> String {
    match Fields::parse(body) {
        Ok(fields) => format!("the auth query failed: {} {}", fields.sqlstate(), fields.message()),
        Err(error) => error.to_string(),
    }
}

fn verifier_of(row: &[u8], user: &[u8]) -> Result<Option<StoredVerifier>, String> {
    let columns = parse_data_row(row).map_err(|error| error.to_string())?;
    let [Some(name), password] = columns.as_slice() else {
        return Err(format!("the auth query gives {} columns, not a name and a verifier", columns.len()));
    };
    // Servers cut long names (`NAMEDATALEN`), in the startup packet as in a query.
    if !user.starts_with(name) {
        return Err("the auth query gives another user".into());
    }
    Ok(password.and_then(|text| std::str::from_utf8(text).ok()).and_then(StoredVerifier::parse))
}

impl VerifierLookup for AuthQuery {
    async fn verifier(&self, user: &[u8]) -> Result<Option<StoredVerifier>, LookupError> {
        if let Some(verifier) = self.recall(user) {
            return Ok(Some(verifier));
        }
        let failed = |reason| LookupError { user: shown(user), reason };
        let answer = match tokio::time::timeout(self.limit, self.ask(user)).await {
            Ok(answer) => answer.map_err(failed)?,
            Err(_) => {
                let server = self.server.load().shown();
                let limit = self.limit.as_millis();
                return Err(failed(format!("no answer from {server} within {limit} ms")));
            }
        };
        if let Some(verifier) = &answer {
            self.remember(user, verifier);
        }
        Ok(answer)
    }

    fn login_failed(&self, user: &[u8]) {
        self.memory().remove(user);
    }
}
