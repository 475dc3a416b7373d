//! Owns how green comes to be: making it, starting it, taking it away again. Refuses to know what is put into it.

mod existing;
mod local;
mod programs;

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::{ConnInfo, Server};
use serde::{Deserialize, Serialize};

pub use existing::Existing;
pub use local::{Local, LocalConfig};
pub(crate) use programs::run as run_program;
pub use programs::{OsUser, Programs};

use crate::checks::GreenFacts;

/// What is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GreenState {
    /// Nothing: `prepare` can begin.
    Absent,
    /// We began and did not finish: `prepare` begins anew, `remove` clears it.
    HalfMade,
    /// Made, and not running.
    Stopped,
    /// Made, running and reachable.
    Running,
    /// There is something that is not ours, and what.
    Foreign(String),
}

/// A setting of blue that green does not get, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The setting, or the file.
    pub name: String,
    /// Its value on blue.
    pub value: String,
    /// Why green does not get it.
    pub why: String,
}

/// What `prepare` did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Settings that green has from blue, with their values.
    pub carried: Vec<(String, String)>,
    /// What green does not have from blue.
    pub left_out: Vec<LeftOut>,
}

/// What went wrong with a provider.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// A server refused or was not reached.
    #[error(transparent)]
    Postgres(Box<pgteal_postgres::Error>),
    /// What is there belongs to somebody else; nothing was changed.
    #[error("{object} is not ours: {reason}")]
    Foreign {
        /// The directory or server.
        object: String,
        /// What was found.
        reason: String,
    },
    /// A program of the server distribution could not be run or failed.
    #[error("{program} failed ({status}): {output}")]
    Program {
        /// The program, without arguments.
        program: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        output: String,
    },
    /// The server did not start.
    #[error("the server in {data_dir} did not start: {log}")]
    NotStarted {
        /// Its data directory.
        data_dir: PathBuf,
        /// The end of its log.
        log: String,
    },
    /// A file could not be read or written.
    #[error("{doing} {path}: {source}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration cannot work, e.g. a missing program or user.
    #[error("{0}")]
    Configuration(String),
}

impl From<pgteal_postgres::Error> for ProviderError {
    fn from(error: pgteal_postgres::Error) -> Self {
        Self::Postgres(Box::new(error))
    }
}

impl ProviderError {
    /// Whether the failed call may nevertheless have changed something that lasts.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Postgres(e) => e.certainty() == pgteal_postgres::Certainty::Unknown,
            Self::Program { .. } | Self::NotStarted { .. } | Self::File { .. } => true,
            Self::Foreign { .. } | Self::Configuration(_) => false,
        }
    }
}

/// The result of everything here.
pub type Result<T, E = ProviderError> = std::result::Result<T, E>;

/// Room that green must have for replication, from the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headroom {
    /// Databases that take part: one stream each.
    pub databases: u32,
    /// Table synchronisation workers per subscription.
    pub copy_workers: u32,
}

/// A way to come by a green cluster. Every call is idempotent and can be repeated after a crash.
#[async_trait]
pub trait Provider: Debug + Send + Sync {
    /// `local` or `existing`, as in the configuration.
    fn kind(&self) -> &'static str;
    /// Whether green was made by us, so that it is removed when it is taken back, also when it does not answer.
    fn is_ours(&self) -> bool {
        true
    }
    /// The programs of green's version, for `pg_dump`.
    fn programs(&self) -> &Programs;
    /// How the tool reaches green.
    fn conninfo(&self) -> &ConnInfo;
    /// How blue's servers reach green, for the reverse stream.
    fn replication_conninfo(&self) -> &ConnInfo;
    /// What can be known of green before it exists, for the checks.
    async fn facts(&self) -> Result<GreenFacts>;
    /// Looks at what is there.
    async fn observe(&self) -> Result<GreenState>;
    /// Whether there is a server to look at now, whoever it belongs to.
    async fn answers(&self) -> Result<bool>;
    /// Makes green (stopped, if the provider can stop it). Leaves a ready one alone, starts anew on a half-made one.
    async fn prepare(&self, blue: &Server, headroom: Headroom) -> Result<Prepared>;
    /// What an earlier `prepare` did, if green is ours and ready.
    async fn prepared(&self) -> Result<Option<Prepared>>;
    /// Starts green and waits until it accepts sessions, at most `bound`.
    async fn start(&self, bound: Duration) -> Result<()>;
    /// Stops green, at most within `bound`. Does nothing where the provider does not run the server.
    async fn stop(&self, bound: Duration) -> Result<()>;
    /// Takes away what `prepare` made, and nothing else.
    async fn remove(&self) -> Result<()>;
}

/// A `map_err` for file operations.
fn file(doing: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> ProviderError {
    let path = path.to_owned();
    move |source| ProviderError::File { doing, path, source }
}
