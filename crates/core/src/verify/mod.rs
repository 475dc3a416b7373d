//! Owns proving that two servers hold the same rows, also while one of them is written to and the other follows. Refuses
//! to know which is blue, and how a point is reached at which the follower has applied everything.
//!
//! A table is settled by a sandwich: digest here, wait until the other side has applied all that was committed before,
//! digest there, digest here again. If the middle one equals either, the tables were equal. If the outer ones agree and
//! the middle one does not, that is suspicious, and three times in a row a mismatch. If all differ, the table is busy:
//! then buckets of rows by the hash of their key are compared in the same way, then single rows. A row that is never
//! quiet long enough is *unsettled*, which is not a mismatch.

mod census;
mod narrow;
mod report;
mod sandwich;
mod sweep;

use async_trait::async_trait;

pub use report::{Outcome, Report, TableReport};
pub use sweep::verify;

/// What went wrong while verifying; never a difference, which is a result.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A server refused or was not reached.
    #[error(transparent)]
    Postgres(Box<pgteal_postgres::Error>),
    /// The follower did not reach the point.
    #[error("database {database}: {reason}")]
    NotInStep {
        /// The database.
        database: String,
        /// What was waited for, and the last status.
        reason: String,
    },
}

impl From<pgteal_postgres::Error> for VerifyError {
    fn from(error: pgteal_postgres::Error) -> Self {
        Self::Postgres(Box::new(error))
    }
}

/// The result of everything here.
pub type Result<T, E = VerifyError> = std::result::Result<T, E>;

/// A way to wait until the follower has applied everything that was committed on the leader before the call, e.g. a
/// marker's round trip.
#[async_trait]
pub trait SyncPoint: Send + Sync {
    /// Returns when that is so.
    async fn reach(&self, database: &str) -> Result<()>;
}

/// For servers that nobody writes to: there is nothing to wait for, and a difference is a mismatch at once.
#[derive(Debug, Clone, Copy)]
pub struct Quiet;

#[async_trait]
impl SyncPoint for Quiet {
    async fn reach(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

/// How hard to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Tables at once, each with a session per side.
    pub jobs: usize,
    /// How often a busy row is looked at before it counts as unsettled.
    pub attempts: u32,
    /// How often the outer digests must agree against the middle one before that is a mismatch.
    pub suspicions: u32,
    /// Keys named per mismatched table.
    pub sample: usize,
}

impl Effort {
    /// While the leader is written to.
    pub const LIVE: Self = Self { jobs: 2, attempts: 12, suspicions: 3, sample: 10 };
    /// While both are quiet.
    pub const QUIET: Self = Self { jobs: 2, attempts: 1, suspicions: 1, sample: 10 };
}
