//! Verifiers by a query on the active side, over a few connections of the proxy's service role.
//! Owns those connections and a small memory of answers; refuses to know what the verifiers are used for.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::BytesMut;
use pgteal_wire::frame;
use pgteal_wire::message::frontend::{put_bind, put_execute, put_parse, put_sync};
use pgteal_wire::message::report::Fields;
use pgteal_wire::message::rows::parse_data_row;
use pgteal_wire::message::tag::back;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use super::client::shown;
use super::lookup::{LookupError, StoredVerifier, VerifierLookup};
use super::service::ServiceLogin;
use super::upstream::Upstream;
use crate::config::AuthConfig;

/// Users remembered at most; beyond it the oldest is forgotten.
const MAX_REMEMBERED: usize = 1024;
/// Longest answer read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// What is asked unless configured otherwise: users that may log in now. `$1` is the user's name.
pub const DEFAULT_QUERY: &str = "SELECT rolname, rolpassword FROM pg_catalog.pg_authid \
    WHERE rolname = $1 AND rolcanlogin AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now())";

/// Connections of the service role, at most: so many questions are asked at once, further ones wait.
const MAX_CONNECTIONS: usize = 4;
/// How long it is believed that there is no such user.
const UNKNOWN_BELIEVED: Duration = Duration::from_secs(1);
/// The query's name on a connection.
const PREPARED: &[u8] = b"auth";

type Found = Option<StoredVerifier>;

/// What its sessions are told besides who they are: the name in a startup packet has no encoding, so bytes are compared.
const SETTINGS: [(&str, &str); 2] = [("application_name", "pgteal/auth"), ("client_encoding", "SQL_ASCII")];

/// The lookup on the active side.
#[derive(Debug)]
pub struct AuthQuery {
    service: ArcSwap<ServiceLogin>,
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
    /// Whose it is and where it goes, by identity: a repoint makes another one.
    service: Arc<ServiceLogin>,
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
    /// A lookup by `service`. `limit` bounds one lookup, the opening of its connection included.
    #[must_use]
    pub fn new(config: &AuthConfig, service: Arc<ServiceLogin>, limit: Duration) -> Self {
        Self {
            service: ArcSwap::new(service),
            query: config.query.clone().unwrap_or_else(|| DEFAULT_QUERY.to_owned()),
            believed: Duration::from_millis(config.cache_ms),
            limit,
            permits: Semaphore::new(MAX_CONNECTIONS),
            idle: Mutex::default(),
            remembered: Mutex::default(),
            asking: Mutex::default(),
        }
    }

    /// Asks by another login from now on: the active side has changed.
    pub fn set_service(&self, service: Arc<ServiceLogin>) {
        self.service.store(service);
        lock(&self.remembered).clear();
        lock(&self.idle).clear();
    }

    /// Whether verifiers can be looked up by `service`, by looking up its own on a new connection, within `limit`.
    ///
    /// # Errors
    /// Why not, with the role and the server.
    pub async fn rehearse(&self, service: &Arc<ServiceLogin>, limit: Duration) -> Result<(), String> {
        let user = service.user().as_bytes();
        let limit = limit.min(self.limit);
        let asked = async {
            let mut fresh = self.open(service).await?;
            self.run(&mut fresh, user).await.map_err(|error| error.to_string())?
        };
        let answer = tokio::time::timeout(limit, asked).await;
        let reason =
            match answer.unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis()))) {
                Ok(_) => return Ok(()),
                Err(reason) => reason,
            };
        let (user, server) = (shown(user), service.server().shown());
        Err(format!("its service role \"{user}\" cannot look up passwords on {server}: {reason}"))
    }

    async fn open(&self, service: &Arc<ServiceLogin>) -> Result<Connection, String> {
        let upstream = service.log_in(service.server(), &SETTINGS, self.limit).await;
        let upstream = upstream.map_err(|error| error.to_string())?;
        Ok(Connection { upstream, service: Arc::clone(service), prepared: false })
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
        let service = self.service.load_full();
        // Taken out while in use: a lookup that is given up halfway must not leave half an answer behind.
        let kept = lock(&self.idle).pop().filter(|kept| Arc::ptr_eq(&kept.service, &service));
        if let Some(mut kept) = kept {
            // The server may have closed an idle connection, or what was prepared may fit no longer: then, and only then,
            // once more on a new one.
            if let Ok(Ok(found)) = self.run(&mut kept, user).await {
                self.keep(kept);
                return Ok(found);
            }
        }
        let mut fresh = self.open(&service).await?;
        let found = self.run(&mut fresh, user).await.map_err(|error| error.to_string())??;
        self.keep(fresh);
        Ok(found)
    }

    fn keep(&self, connection: Connection) {
        let mut idle = lock(&self.idle);
        if Arc::ptr_eq(&connection.service, &self.service.load()) {
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
                let server = self.service.load().server().shown();
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
