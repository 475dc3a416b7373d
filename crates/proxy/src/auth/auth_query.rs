//! Verifiers by a query on the active side, over a few connections of the proxy's service role.
//! Owns those connections and a small memory of answers; refuses to know what the verifiers are used for.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use tokio::sync::Semaphore;
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

/// Connections of the service role, at most: so many questions are asked at once, further ones wait.
const MAX_CONNECTIONS: usize = 4;
/// How long it is believed that there is no such user.
const UNKNOWN_BELIEVED: Duration = Duration::from_secs(1);
/// The query's name on a connection.
const PREPARED: &[u8] = b"auth";

type Found = Option<StoredVerifier>;

/// The lookup on the active side.
#[derive(Debug)]
pub struct AuthQuery {
    server: ArcSwap<Target>,
    startup: StartupMessage,
    credentials: Credentials,
    query: String,
    believed: Duration,
    limit: Duration,
    permits: Semaphore,
    idle: Mutex<Vec<Connection>>,
    remembered: Mutex<HashMap<Vec<u8>, (Instant, Found)>>,
    asking: Mutex<HashMap<Vec<u8>, Arc<Asking>>>,
}

/// The questions about one user, one after the other: the last one that was begun, and its answer.
type Asking = tokio::sync::Mutex<Option<(Instant, Result<Found, LookupError>)>>;

#[derive(Debug)]
struct Connection {
    upstream: Upstream,
    /// The server it goes to, by identity: a repoint makes another one.
    server: Arc<Target>,
    prepared: bool,
}

/// One who waits for an answer about a user; the last one takes the place away.
struct Waiting<'a> {
    query: &'a AuthQuery,
    user: &'a [u8],
    asking: Arc<Asking>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut asking = lock(&self.query.asking);
        // The map's and ours.
        if Arc::strong_count(&self.asking) <= 2 {
            asking.remove(self.user);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            permits: Semaphore::new(MAX_CONNECTIONS),
            idle: Mutex::default(),
            remembered: Mutex::default(),
            asking: Mutex::default(),
        }
    }

    /// Asks another server from now on: the active side has changed.
    pub fn set_server(&self, server: Arc<Target>) {
        self.server.store(server);
        lock(&self.remembered).clear();
        lock(&self.idle).clear();
    }

    fn recall(&self, user: &[u8]) -> Option<Found> {
        let mut memory = lock(&self.remembered);
        let (at, found) = memory.get(user)?;
        let believed = if found.is_some() { self.believed } else { UNKNOWN_BELIEVED };
        if at.elapsed() < believed {
            return Some(found.clone());
        }
        memory.remove(user);
        None
    }

    fn remember(&self, user: &[u8], found: &Found) {
        if found.is_some() && self.believed.is_zero() {
            return;
        }
        let mut memory = lock(&self.remembered);
        if memory.len() >= MAX_REMEMBERED && !memory.contains_key(user) {
            let oldest = memory.iter().min_by_key(|(_, (at, _))| *at).map(|(name, _)| name.clone());
            if let Some(oldest) = oldest {
                memory.remove(&oldest);
            }
        }
        memory.insert(user.to_vec(), (Instant::now(), found.clone()));
    }

    /// Asks about a user, one question at a time. Who comes while one is under way shares the next one with all others that
    /// came by then: an answer to a question that was asked before may be older than the password that the client has.
    async fn ask_in_turn(&self, user: &[u8]) -> Result<Found, LookupError> {
        let came = Instant::now();
        let asking = Arc::clone(lock(&self.asking).entry(user.to_vec()).or_default());
        let waiting = Waiting { query: self, user, asking };
        let mut last = waiting.asking.lock().await;
        if let Some((_, answer)) = last.as_ref().filter(|(begun, _)| *begun > came) {
            return answer.clone();
        }
        let begun = Instant::now();
        let answer = self.ask(user).await.map_err(|reason| LookupError { user: shown(user), reason });
        if let Ok(found) = &answer {
            self.remember(user, found);
        }
        *last = Some((begun, answer.clone()));
        answer
    }

    async fn ask(&self, user: &[u8]) -> Result<Found, String> {
        let _permit = self.permits.acquire().await.map_err(|error| error.to_string())?;
        let server = self.server.load_full();
        // Taken out while in use: a lookup that is given up halfway must not leave half an answer behind.
        let kept = lock(&self.idle).pop().filter(|kept| Arc::ptr_eq(&kept.server, &server));
        if let Some(mut kept) = kept {
            // The server may have closed an idle connection, or what was prepared may fit no longer: then, and only then,
            // once more on a new one.
            if let Ok(Ok(found)) = self.run(&mut kept, user).await {
                self.keep(kept);
                return Ok(found);
            }
        }
        let upstream = upstream::log_in(&server, &self.startup, &self.credentials, self.limit).await;
        let upstream = upstream.map_err(|error| error.to_string())?;
        let mut fresh = Connection { upstream, server, prepared: false };
        let found = self.run(&mut fresh, user).await.map_err(|error| error.to_string())??;
        self.keep(fresh);
        Ok(found)
    }

    fn keep(&self, connection: Connection) {
        let mut idle = lock(&self.idle);
        if Arc::ptr_eq(&connection.server, &self.server.load()) {
            idle.push(connection);
        }
    }

    /// One round trip. The outer error is a lost connection, the inner one the server's refusal.
    async fn run(&self, connection: &mut Connection, user: &[u8]) -> io::Result<Result<Found, String>> {
        let mut out = BytesMut::new();
        if !std::mem::replace(&mut connection.prepared, true) {
            put_parse(&mut out, PREPARED, self.query.as_bytes());
        }
        put_bind(&mut out, PREPARED, &[Some(user)]);
        put_execute(&mut out);
        put_sync(&mut out);
        let upstream = &mut connection.upstream;
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
        if let Some(found) = self.recall(user) {
            return Ok(found);
        }
        match tokio::time::timeout(self.limit, self.ask_in_turn(user)).await {
            Ok(answer) => answer,
            Err(_) => {
                let server = self.server.load().shown();
                let limit = self.limit.as_millis();
                let reason = format!("no answer from {server} within {limit} ms");
                Err(LookupError { user: shown(user), reason })
            }
        }
    }

    fn login_failed(&self, user: &[u8]) {
        let mut memory = lock(&self.remembered);
        // That there is no such user is believed whatever fails: floods of such logins must not reach the server.
        if memory.get(user).is_some_and(|(_, found)| found.is_some()) {
            memory.remove(user);
        }
    }
}
