//! One client connection and one transaction over it. Owns the protocol side of every dialect and the line between
//! "certainly not committed" and "unknown"; refuses to know records and pacing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tokio_postgres::error::Severity;
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage, Statement};

use crate::book::Book;
use crate::dialect::Dialect;
use crate::record::Fault;
use crate::statement::{Call, Sql, Value};

/// How long one attempt to connect may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Why a transaction was not confirmed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    /// The connection is of no use any more.
    pub(crate) lost: bool,
    /// COMMIT had been sent, so that with a lost connection nobody knows the outcome.
    pub(crate) commit_sent: bool,
}

/// The single bigint of each statement; `None` where a statement did not return exactly one row.
pub(crate) type Answers = Vec<Option<i64>>;

/// An open connection that speaks one dialect.
#[derive(Debug)]
pub(crate) struct Connection {
    client: Client,
    dialect: Dialect,
    texts: HashMap<Sql, String>,
    prepared: HashMap<Sql, Statement>,
    farewell: Arc<Mutex<Option<Fault>>>,
}

impl Connection {
    /// Connects and brings the session into the state its dialect relies on.
    pub(crate) async fn open(
        config: &Config,
        book: Book,
        session: u32,
        dialect: Dialect,
    ) -> Result<Connection, Fault> {
        let opening = Self::open_unbounded(config, book, session, dialect);
        let late =
            || Fault { sqlstate: "limit".into(), message: format!("no connection within {CONNECT_LIMIT:?}") };
        tokio::time::timeout(CONNECT_LIMIT, opening).await.map_err(|_| late())?
    }

    async fn open_unbounded(
        config: &Config,
        book: Book,
        session: u32,
        dialect: Dialect,
    ) -> Result<Connection, Fault> {
        let mut config = config.clone();
        config.application_name(format!("ledger/{session}"));
        if dialect == Dialect::StartupOptions {
            config.options(format!("-c search_path={},public -c lock_timeout=55s", book.schema()));
        }
        let (client, driver) = config.connect(NoTls).await.map_err(|error| fault(&error))?;
        let farewell = Arc::new(Mutex::new(None));
        let heard = Arc::clone(&farewell);
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault(&error));
            }
        });
        let prefix = if dialect.unqualified() { String::new() } else { format!("{}.", book.schema()) };
        let texts = Sql::all(book).into_iter().map(|sql| (sql, sql.text(book, &prefix))).collect();
        let mut connection = Connection { client, dialect, texts, prepared: HashMap::new(), farewell };
        connection.settle_in(book).await.map_err(|error| fault(&error))?;
        Ok(connection)
    }

    async fn settle_in(&mut self, book: Book) -> Result<(), Error> {
        if self.dialect == Dialect::SearchPath {
            let set = format!(
                "SET search_path = {}, public; SET statement_timeout = '55s'; SET timezone = 'Asia/Tokyo'",
                book.schema()
            );
            self.client.batch_execute(&set).await?;
        }
        for (sql, text) in &self.texts {
            if self.dialect.prepares() {
                self.prepared.insert(*sql, self.client.prepare(text).await?);
            } else if self.dialect == Dialect::SqlPrepare {
                self.client.batch_execute(&format!("PREPARE {} AS {text}", sql.name())).await?;
            }
        }
        Ok(())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// What the server said when it ended the connection, if it did.
    pub(crate) fn farewell(&self) -> Option<Fault> {
        self.farewell.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs one statement outside a transaction block.
    pub(crate) async fn read(&self, call: &Call) -> Result<Answers, Failure> {
        match self.call(call).await {
            Ok(answer) => Ok(vec![answer]),
            Err(error) => Err(self.failure(&error, false)),
        }
    }

    /// Runs one transaction. A refusal leaves the connection outside any transaction block, or marked lost.
    pub(crate) async fn write(&self, calls: &[Call]) -> Result<Answers, Failure> {
        let outcome = match self.dialect {
            Dialect::Pipelined => self.pipelined(calls).await,
            Dialect::OneMessage => self.one_message(calls).await,
            _ => self.in_turn(calls).await,
        };
        match outcome {
            Err(failure) if !failure.lost => match self.client.batch_execute("ROLLBACK").await {
                Ok(()) => Err(failure),
                Err(_) => Err(Failure { lost: true, commit_sent: false, ..failure }),
            },
            other => other,
        }
    }

    async fn in_turn(&self, calls: &[Call]) -> Result<Answers, Failure> {
        let before = |error: Error| self.failure(&error, false);
        self.client.batch_execute("BEGIN").await.map_err(before)?;
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            answers.push(self.call(call).await.map_err(before)?);
        }
        self.client.batch_execute("COMMIT").await.map_err(|error| self.failure(&error, true))?;
        Ok(answers)
    }

    /// BEGIN is awaited alone: were it refused, the statements behind it would commit one by one.
    async fn pipelined(&self, calls: &[Call]) -> Result<Answers, Failure> {
        self.client.batch_execute("BEGIN").await.map_err(|error| self.failure(&error, false))?;
        let statements = join_all(calls.iter().map(|call| self.call(call)));
        // Polled from left to right, so COMMIT is sent last.
        let (answers, commit) = futures::join!(statements, self.client.batch_execute("COMMIT"));
        // After an error COMMIT reports success and rolls back: only all answers together mean committed.
        let answers: Result<Answers, Error> = answers.into_iter().collect();
        let answers = answers.map_err(|error| self.failure(&error, true))?;
        commit.map_err(|error| self.failure(&error, true))?;
        Ok(answers)
    }

    async fn one_message(&self, calls: &[Call]) -> Result<Answers, Failure> {
        let texts = calls.iter().filter_map(|call| Some(call.inlined(self.texts.get(&call.sql)?)));
        let message = format!("BEGIN; {}; COMMIT", texts.collect::<Vec<_>>().join("; "));
        let replies = self.client.simple_query(&message).await.map_err(|error| self.failure(&error, true))?;
        // One reply list for the whole message: BEGIN and COMMIT complete without rows.
        let mut answers = Vec::with_capacity(calls.len());
        let mut rows = Vec::new();
        let mut completed = 0;
        for reply in &replies {
            match reply {
                SimpleQueryMessage::Row(row) => {
                    rows.push(row.try_get(0).ok().flatten().and_then(|t| t.parse().ok()))
                }
                SimpleQueryMessage::CommandComplete(_) => {
                    if (1..=calls.len()).contains(&completed) {
                        answers.push(single(&rows));
                    }
                    rows.clear();
                    completed += 1;
                }
                _ => {}
            }
        }
        Ok(answers)
    }

    async fn call(&self, call: &Call) -> Result<Option<i64>, Error> {
        if let Some(statement) = self.prepared.get(&call.sql) {
            let values: Vec<_> = call.values.iter().map(Value::to_sql).collect();
            let rows = self.client.query(statement, &values).await?;
            let values = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<_>, _>>()?;
            return Ok(single(&values));
        }
        let text = if self.dialect == Dialect::SqlPrepare {
            let values: Vec<String> = call.values.iter().map(Value::literal).collect();
            format!("EXECUTE {}({})", call.sql.name(), values.join(", "))
        } else {
            self.texts.get(&call.sql).map(|text| call.inlined(text)).unwrap_or_default()
        };
        let replies = self.client.simple_query(&text).await?;
        let values: Vec<Option<i64>> = replies
            .iter()
            .filter_map(|reply| match reply {
                SimpleQueryMessage::Row(row) => {
                    Some(row.try_get(0).ok().flatten().and_then(|t| t.parse().ok()))
                }
                _ => None,
            })
            .collect();
        Ok(single(&values))
    }

    fn failure(&self, error: &Error, commit_sent: bool) -> Failure {
        let severity = error.as_db_error().and_then(|db| db.parsed_severity());
        let fatal = matches!(severity, Some(Severity::Fatal | Severity::Panic));
        let lost = fatal || error.as_db_error().is_none() || self.client.is_closed();
        let fault = match self.farewell() {
            Some(farewell) if error.as_db_error().is_none() => farewell,
            _ => fault(error),
        };
        Failure { fault, lost, commit_sent }
    }
}

fn single(values: &[Option<i64>]) -> Option<i64> {
    match values {
        [value] => *value,
        _ => None,
    }
}

/// An error as the client saw it; `lost` where the connection ended without a word from the server.
pub(crate) fn fault(error: &Error) -> Fault {
    match error.as_db_error() {
        Some(db) => Fault { sqlstate: db.code().code().to_owned(), message: db.message().to_owned() },
        None => Fault { sqlstate: "lost".into(), message: with_sources(error) },
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", with_sources(source)),
        None => error.to_string(),
    }
}
