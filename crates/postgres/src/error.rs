//! What can go wrong when talking to one server, as facts: where, doing what, what the server said. Gives no advice and
//! never contains a password.

use std::fmt;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::ConnInfoError;

/// The result of every operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Which server and database, and what was being done there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The name the caller gave the server.
    pub server: String,
    /// The database.
    pub database: String,
    /// What was being done, as a phrase that follows "while", e.g. `creating replication slot x`.
    pub doing: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server {}, database {}, while {}", self.server, self.database, self.doing)
    }
}

/// Whether an operation that failed may nevertheless have changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// Certainly no change: the server refused, or nothing was sent.
    Refused,
    /// It may have happened: the answer was lost.
    Unknown,
}

/// Why a connection could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFailure {
    /// No TCP or Unix connection: wrong address, nobody listens, name unknown, or it took too long.
    Unreachable,
    /// TLS could not be agreed or the certificate was not accepted.
    Tls,
    /// The server refused the role or the password (SQLSTATE class 28), or no password was there to send.
    Authentication,
    /// The database does not exist (3D000).
    NoSuchDatabase,
    /// The server is starting, stopping or recovering (57P03), or has no connection left (53300).
    NotReady,
    /// Anything else the server said.
    Other,
}

/// What the server said about a statement.
#[derive(Debug, Clone)]
pub struct StatementError {
    /// Where it was said.
    pub place: Place,
    /// `ERROR` or `FATAL`.
    pub severity: String,
    /// The SQLSTATE (PostgreSQL docs, appendix "PostgreSQL Error Codes").
    pub sqlstate: SqlState,
    /// The primary message.
    pub message: String,
    /// DETAIL, if any.
    pub detail: Option<String>,
    /// HINT, if any.
    pub hint: Option<String>,
    /// CONTEXT, if any.
    pub context: Option<String>,
}

impl fmt::Display for StatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (SQLSTATE {})", self.place, self.message, self.sqlstate.code())?;
        for (label, text) in [("detail", &self.detail), ("hint", &self.hint), ("context", &self.context)] {
            if let Some(text) = text {
                write!(f, "; {label}: {text}")?;
            }
        }
        Ok(())
    }
}

/// What can go wrong with one server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection settings cannot be used.
    #[error(transparent)]
    ConnInfo(#[from] ConnInfoError),
    /// No session could be opened.
    #[error("cannot connect to server {server} ({address}), database {database}: {message}")]
    Connect {
        /// The name of the server.
        server: String,
        /// Where it was looked for, `host:port` or a socket.
        address: String,
        /// The database asked for.
        database: String,
        /// The kind of failure.
        failure: ConnectFailure,
        /// What was said.
        message: String,
        /// The server's SQLSTATE, if the server got to say something.
        sqlstate: Option<SqlState>,
    },
    /// The server refused a statement.
    #[error("{0}")]
    Statement(Box<StatementError>),
    /// A call took longer than its bound. `settled` when the server confirmed that it was cancelled.
    #[error("{place}: no answer within {} ms{}", limit.as_millis(), if *settled { ", cancelled" } else { ", and no answer to the cancel request" })]
    TimedOut {
        /// Where.
        place: Box<Place>,
        /// The bound.
        limit: Duration,
        /// Whether the server confirmed the cancellation.
        settled: bool,
    },
    /// The connection broke, so it is not known what became of the statement.
    #[error("{place}: the connection was lost: {message}")]
    Lost {
        /// Where.
        place: Box<Place>,
        /// What was last heard.
        message: String,
    },
    /// Something was waited for and did not come.
    #[error("{place}: waited {} ms for {condition}; last seen: {last}", bound.as_millis())]
    NotReached {
        /// Where.
        place: Box<Place>,
        /// The condition waited for.
        condition: String,
        /// How long at most.
        bound: Duration,
        /// The last status seen.
        last: String,
    },
    /// An object with our prefix belongs to somebody else. Nothing was changed.
    #[error("server {server}, database {database}: {object} exists and is not ours ({reason})")]
    Foreign {
        /// The name of the server.
        server: String,
        /// The database.
        database: String,
        /// Kind and name, e.g. `replication slot pgteal_abcd2345_fwd`.
        object: String,
        /// Why it is not ours.
        reason: String,
    },
    /// The server answered something that this program does not understand, or an object is not as it must be.
    #[error("{place}: {message}")]
    Unexpected {
        /// Where.
        place: Box<Place>,
        /// What was found.
        message: String,
    },
}

impl Error {
    /// The SQLSTATE, if the server gave one.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Error::Statement(e) => Some(&e.sqlstate),
            Error::Connect { sqlstate, .. } => sqlstate.as_ref(),
            _ => None,
        }
    }

    /// Whether the server gave this SQLSTATE.
    pub fn is(&self, state: &SqlState) -> bool {
        self.sqlstate() == Some(state)
    }

    /// Whether the failed call may nevertheless have changed something. A server that says ERROR has rolled back;
    /// FATAL, a lost connection and an unanswered cancel leave it open.
    pub fn certainty(&self) -> Certainty {
        match self {
            Error::ConnInfo(_) | Error::Connect { .. } | Error::Foreign { .. } => Certainty::Refused,
            Error::Statement(e) if e.severity == "ERROR" && e.sqlstate.code() != "40003" => {
                Certainty::Refused
            }
            Error::TimedOut { settled: true, .. } => Certainty::Refused,
            _ => Certainty::Unknown,
        }
    }

    /// Whether the same call may succeed a moment later: connection trouble, lock or time limits, a server that starts.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Connect { failure, .. } => {
                matches!(failure, ConnectFailure::Unreachable | ConnectFailure::NotReady)
            }
            Error::Statement(e) => {
                let code = e.sqlstate.code();
                matches!(&code[..2], "08" | "40" | "53" | "55" | "57")
            }
            Error::TimedOut { .. } | Error::Lost { .. } | Error::NotReached { .. } => true,
            Error::ConnInfo(_) | Error::Foreign { .. } | Error::Unexpected { .. } => false,
        }
    }

    /// Whether the session that gave this error is of no more use.
    pub fn ends_session(&self) -> bool {
        match self {
            Error::Lost { .. } | Error::TimedOut { settled: false, .. } => true,
            Error::Statement(e) => e.severity != "ERROR",
            _ => false,
        }
    }
}
