//! Owns carrying to green what logical replication leaves behind: roles, databases, the schema, indexes, triggers,
//! materialized views, statistics, sequences. Refuses to know when each is done: the steps call it.
//!
//! What must be remembered to put things back is in `pgteal.state` of the server it concerns, written in the
//! transaction that makes the change.

pub mod databases;
mod dump;
mod entries;
pub mod indexes;
pub mod matviews;
mod memory;
pub mod roles;
pub mod schema;
pub mod sequences;
pub mod statistics;
pub mod triggers;

pub use dump::Dump;
pub use entries::{Entry, Section};
pub use memory::Author;

use crate::providers::ProviderError;

/// What went wrong while carrying.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// A server refused or was not reached.
    #[error(transparent)]
    Postgres(Box<pgteal_postgres::Error>),
    /// A program of the distribution failed.
    #[error(transparent)]
    Program(Box<ProviderError>),
    /// One object of the schema could not be made on green.
    #[error("database {database}: {kind} {object} could not be made: {source}")]
    Entry {
        /// The database.
        database: String,
        /// The kind as pg_dump names it, e.g. `INDEX`.
        kind: String,
        /// The object.
        object: String,
        /// What the server said.
        source: Box<pgteal_postgres::Error>,
    },
    /// What is on green is not what we put there; nothing was changed.
    #[error("{object} on green is not ours: {reason}")]
    Foreign {
        /// The object.
        object: String,
        /// Why not.
        reason: String,
    },
    /// Green does not have what blue has.
    #[error("{object} cannot be carried: {reason}")]
    Unsupported {
        /// The object.
        object: String,
        /// Why not.
        reason: String,
    },
    /// What was remembered or dumped cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

impl From<pgteal_postgres::Error> for CarryError {
    fn from(error: pgteal_postgres::Error) -> Self {
        Self::Postgres(Box::new(error))
    }
}

impl From<ProviderError> for CarryError {
    fn from(error: ProviderError) -> Self {
        Self::Program(Box::new(error))
    }
}

impl CarryError {
    /// The server's error underneath, if there is one.
    pub fn server_error(&self) -> Option<&pgteal_postgres::Error> {
        match self {
            Self::Postgres(e) | Self::Entry { source: e, .. } => Some(e),
            Self::Program(e) => match &**e {
                ProviderError::Postgres(e) => Some(e),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the failed call may nevertheless have changed something on green.
    pub fn is_unknown(&self) -> bool {
        match (self, self.server_error()) {
            (_, Some(e)) => e.certainty() == pgteal_postgres::Certainty::Unknown,
            // Programs are only ever run to read.
            _ => false,
        }
    }
}

/// The result of everything here.
pub type Result<T, E = CarryError> = std::result::Result<T, E>;
