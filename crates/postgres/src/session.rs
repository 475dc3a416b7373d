//! One connection to one database: bounded calls, cancellation, errors that say where. Knows no catalogue and does not
//! reconnect.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, Statement, ToStatement};

use crate::dial::{self, Dialled, describe};
use crate::error::{ConnectFailure, Error, Place, Result};
use crate::purpose::Purpose;
use crate::record::Record;
use crate::server::Server;
use crate::tls::Tls;
use crate::version::Version;

/// How long a cancelled call may take to admit it.
const CANCEL_GRACE: Duration = Duration::from_secs(1);

/// At most so many statements are kept prepared per session; further ones are prepared for one use.
const STATEMENT_LIMIT: usize = 256;

/// A connection to one database. Clones share the connection; their calls are answered in order. A call that is dropped
/// before its answer may still take effect.
#[derive(Debug, Clone)]
pub struct Session {
    inner: Arc<Inner>,
    limit: Duration,
    shared: bool,
}

struct Inner {
    server: String,
    database: String,
    client: Client,
    version: Version,
    pid: i32,
    tls: Tls,
    ended: Arc<OnceLock<String>>,
    statements: Mutex<HashMap<String, Statement>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} pid {}", self.server, self.database, self.pid)
    }
}

impl Session {
    pub(crate) async fn open(server: &Server, database: &str, purpose: Purpose) -> Result<Session> {
        let config = server.driver_config(database, &purpose);
        let bound = server.conninfo().connect_timeout;
        let Dialled { client, version, ended } = dial::dial(server, database, &config, bound).await?;
        let Some(version) = version else {
            let message = "the server did not tell its version".to_owned();
            return Err(dial::failed(server, database, ConnectFailure::Other, message, None));
        };
        let inner = Inner {
            server: server.name().to_owned(),
            database: database.to_owned(),
            client,
            version,
            pid: 0,
            tls: server.tls().clone(),
            ended,
            statements: Mutex::default(),
        };
        Self { inner: Arc::new(inner), limit: purpose.call_limit(), shared: false }.introduce().await
    }

    /// Sets what startup options cannot set safely on every version and platform, and learns our process id.
    async fn introduce(mut self) -> Result<Session> {
        let mut set = vec![("idle_session_timeout", "0")];
        if self.version().major >= 17 {
            set.push(("transaction_timeout", "0"));
        }
        let plain = |set: &[(&str, &str)]| {
            let calls: String =
                set.iter().map(|(k, v)| format!(", set_config('{k}', '{v}', false)")).collect();
            format!("SELECT pg_backend_pid(){calls}")
        };
        let doing = "opening a session";
        let mut with_check = set.clone();
        with_check.push(("client_connection_check_interval", "500ms"));
        // Platforms that cannot watch a socket refuse the interval (22023); it is a safety net, not a need.
        let answer = match self.text_row(doing, &plain(&with_check)).await {
            Err(e) if e.is(&SqlState::INVALID_PARAMETER_VALUE) => self.text_row(doing, &plain(&set)).await?,
            other => other?,
        };
        let pid = answer.first().cloned().flatten().and_then(|p| p.parse().ok());
        match (pid, Arc::get_mut(&mut self.inner)) {
            (Some(pid), Some(inner)) => inner.pid = pid,
            _ => return Err(self.unexpected(doing, "pg_backend_pid() is not a number")),
        }
        Ok(self)
    }

    async fn text_row(&self, doing: &str, sql: &str) -> Result<Vec<Option<String>>> {
        Ok(self.text_rows(doing, sql).await?.into_iter().next().unwrap_or_default())
    }

    /// The name of the server.
    pub fn server(&self) -> &str {
        &self.inner.server
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.inner.database
    }

    /// The server's version.
    pub fn version(&self) -> Version {
        self.inner.version
    }

    /// The process id of our backend.
    pub fn backend_pid(&self) -> i32 {
        self.inner.pid
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.inner.client.is_closed()
    }

    /// The driver's client, for COPY and whatever this type does not offer; calls through it are not bounded.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// The same connection with another bound for each call.
    pub fn within(&self, limit: Duration) -> Session {
        Session { limit, ..self.clone() }
    }

    pub(crate) fn shared(self) -> Session {
        Session { shared: true, ..self }
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.shared
    }

    /// This session and what it is doing, for errors.
    pub fn place(&self, doing: &str) -> Place {
        Place {
            server: self.inner.server.clone(),
            database: self.inner.database.clone(),
            doing: doing.to_owned(),
        }
    }

    /// An error about something found here that is not as it must be.
    pub fn unexpected(&self, doing: &str, message: impl Into<String>) -> Error {
        Error::Unexpected { place: Box::new(self.place(doing)), message: message.into() }
    }

    /// Runs a query, a text or a prepared statement, and returns its rows.
    pub async fn query<T>(
        &self,
        doing: &str,
        statement: &T,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Record>>
    where
        T: ?Sized + ToStatement,
    {
        let place = Arc::new(self.place(doing));
        let rows = self.bounded(&place, self.inner.client.query(statement, params)).await?;
        Ok(rows.into_iter().map(|row| Record::new(row, Arc::clone(&place))).collect())
    }

    /// As [`Session::query`], for at most one row.
    pub async fn query_opt<T>(
        &self,
        doing: &str,
        statement: &T,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Record>>
    where
        T: ?Sized + ToStatement,
    {
        let mut rows = self.query(doing, statement, params).await?;
        match rows.len() {
            0 | 1 => Ok(rows.pop()),
            n => Err(self.unexpected(doing, format!("{n} rows instead of at most one"))),
        }
    }

    /// As [`Session::query`], for exactly one row.
    pub async fn query_one<T>(
        &self,
        doing: &str,
        statement: &T,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Record>
    where
        T: ?Sized + ToStatement,
    {
        let row = self.query_opt(doing, statement, params).await?;
        row.ok_or_else(|| self.unexpected(doing, "no row instead of one"))
    }

    /// Runs a statement and returns the number of rows it touched.
    pub async fn execute<T>(&self, doing: &str, statement: &T, params: &[&(dyn ToSql + Sync)]) -> Result<u64>
    where
        T: ?Sized + ToStatement,
    {
        let place = Arc::new(self.place(doing));
        self.bounded(&place, self.inner.client.execute(statement, params)).await
    }

    /// Runs one or more statements in one message. Several statements are one transaction unless they say otherwise
    /// (PostgreSQL docs, "Multiple Statements in a Simple Query").
    pub async fn batch(&self, doing: &str, sql: &str) -> Result<()> {
        let place = Arc::new(self.place(doing));
        self.bounded(&place, self.inner.client.batch_execute(sql)).await
    }

    /// Runs statements in one message and returns all their rows as text, by the simple protocol.
    pub async fn text_rows(&self, doing: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let place = Arc::new(self.place(doing));
        let messages = self.bounded(&place, self.inner.client.simple_query(sql)).await?;
        let cells = |row: tokio_postgres::SimpleQueryRow| {
            (0..row.len()).map(|i| row.try_get(i).ok().flatten().map(str::to_owned)).collect()
        };
        Ok(messages
            .into_iter()
            .filter_map(|m| if let SimpleQueryMessage::Row(row) = m { Some(cells(row)) } else { None })
            .collect())
    }

    /// A statement prepared once per session, for what must be answered in one round trip.
    pub async fn prepared(&self, doing: &str, sql: &str) -> Result<Statement> {
        if let Some(known) = self.statements().get(sql) {
            return Ok(known.clone());
        }
        let place = Arc::new(self.place(doing));
        let statement = self.bounded(&place, self.inner.client.prepare(sql)).await?;
        let mut statements = self.statements();
        if statements.len() < STATEMENT_LIMIT {
            statements.insert(sql.to_owned(), statement.clone());
        }
        Ok(statement)
    }

    /// The statement for a text, if it is prepared already.
    pub(crate) fn if_prepared(&self, sql: &str) -> Option<Statement> {
        self.statements().get(sql).cloned()
    }

    fn statements(&self) -> std::sync::MutexGuard<'_, HashMap<String, Statement>> {
        self.inner.statements.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a call within the session's bound; when that is over, cancels it and waits for the server to say so.
    async fn bounded<R>(
        &self,
        place: &Arc<Place>,
        call: impl Future<Output = Result<R, tokio_postgres::Error>>,
    ) -> Result<R> {
        let mut call = pin!(call);
        if let Ok(answer) = timeout(self.limit, &mut call).await {
            return answer.map_err(|e| self.explain(place, &e));
        }
        let timed_out =
            |settled| Error::TimedOut { place: Box::new((**place).clone()), limit: self.limit, settled };
        let cancel = self.inner.client.cancel_token();
        let ask = async {
            match &self.inner.tls {
                Tls::Off => cancel.cancel_query(NoTls).await,
                Tls::On(tls) => cancel.cancel_query(tls.clone()).await,
            }
        };
        if let Ok(Err(e)) = timeout(CANCEL_GRACE, ask).await {
            tracing::debug!(place = %place, error = %describe(&e), "cancel request failed");
        }
        match timeout(CANCEL_GRACE, &mut call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) if e.code() == Some(&SqlState::QUERY_CANCELED) => Err(timed_out(true)),
            Ok(Err(e)) => Err(self.explain(place, &e)),
            Err(_) => Err(timed_out(false)),
        }
    }

    fn explain(&self, place: &Place, error: &tokio_postgres::Error) -> Error {
        dial::explain(place, error, &self.inner.ended)
    }
}
