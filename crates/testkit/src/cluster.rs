//! One real PostgreSQL cluster as processes. Owns its life: start, stop, kill, freeze, restart. Refuses to know what
//! the test does with it.

mod builder;
mod client;
mod replica;
mod signals;

pub use builder::ClusterBuilder;

use crate::distribution::{Distribution, DistributionError};
use crate::port::PortLease;
use crate::scratch::{Scratch, servers};
use crate::wait::{WaitError, wait_until};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A start includes crash recovery on a busy two-core machine.
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);

/// What went wrong with a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no such version on this machine.
    #[error(transparent)]
    Distribution(#[from] DistributionError),
    /// A file or a program.
    #[error("{what} of cluster {cluster}: {source}")]
    Io {
        /// The cluster's name.
        cluster: String,
        /// What was done.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The postmaster ended instead of starting.
    #[error("cluster {cluster} did not start ({status}); its log ends with:\n{log}")]
    NotStarted {
        /// The cluster's name.
        cluster: String,
        /// How the postmaster ended.
        status: ExitStatus,
        /// The end of the log.
        log: String,
    },
    /// Something did not happen in time.
    #[error("cluster {cluster}: {source}")]
    Wait {
        /// The cluster's name.
        cluster: String,
        /// The condition, its bound and its last status.
        source: WaitError,
    },
    /// The server refused a statement, or could not be reached.
    #[error("cluster {cluster}: {statement}: {}", explain(source))]
    Sql {
        /// The cluster's name.
        cluster: String,
        /// The statement, or `connect to <database>`.
        statement: String,
        /// The driver's error.
        source: tokio_postgres::Error,
    },
}

/// A PostgreSQL cluster in a private directory, reached over a Unix socket and over TCP on 127.0.0.1. Dropping it
/// kills its processes and removes its directory; if the thread is panicking its log is kept and the place printed.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    distribution: Distribution,
    port: PortLease,
    data: PathBuf,
    postmaster: Mutex<Option<Child>>,
    // Last, because its drop kills and removes all.
    scratch: Scratch,
}

impl Cluster {
    /// A builder for a cluster of `major` (fetched distribution, else Debian's).
    #[must_use]
    pub fn builder(major: u16) -> ClusterBuilder {
        ClusterBuilder::new(major)
    }

    /// A running cluster of `major` with the kit's defaults.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn start_new(major: u16) -> Result<Self, ClusterError> {
        Self::builder(major).start().await
    }

    /// The name given by the builder, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version it runs.
    #[must_use]
    pub fn distribution(&self) -> &Distribution {
        &self.distribution
    }

    /// The TCP port on 127.0.0.1; the same for the cluster's whole life. The socket's name has it too.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// The directory of the Unix socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.scratch.path()
    }

    /// All that the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// The postmaster's process number while it runs.
    #[must_use]
    pub fn postmaster_pid(&self) -> Option<u32> {
        self.postmaster().as_ref().map(Child::id)
    }

    /// Whether the postmaster runs; false also when it has ended by itself.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.postmaster().as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    /// Starts the server and waits until it takes connections. Does nothing if it runs.
    ///
    /// # Errors
    /// [`ClusterError::NotStarted`] with the end of the log, or [`ClusterError::Wait`] after 60 s.
    pub async fn start(&self) -> Result<(), ClusterError> {
        if self.is_running() {
            return Ok(());
        }
        self.forget();
        self.launch().map_err(self.io("start"))?;
        let ready = wait_until("the server to take connections", START, async || self.started());
        match ready.await.map_err(|source| ClusterError::Wait { cluster: self.name.clone(), source })? {
            None => Ok(()),
            Some(status) => {
                self.forget();
                let log = tail(&self.log());
                Err(ClusterError::NotStarted { cluster: self.name.clone(), status, log })
            }
        }
    }

    /// Stops and starts again (fast shutdown).
    ///
    /// # Errors
    /// As [`Self::stop_fast`] and [`Self::start`].
    pub async fn restart(&self) -> Result<(), ClusterError> {
        self.stop_fast().await?;
        self.start().await
    }

    fn launch(&self) -> io::Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut postgres = self.distribution.command("postgres");
        postgres.arg("-D").arg(&self.data).current_dir(&self.data);
        // Out of the test's group, as a service would be: ctrl-C is for the test, the watchdog does the rest.
        std::os::unix::process::CommandExt::process_group(&mut postgres, 0);
        postgres.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A killed postmaster leaves its file; were it still there, its old status could be taken for the new one.
        let _ = fs::remove_file(self.data.join("postmaster.pid"));
        *self.postmaster() = Some(postgres.spawn()?);
        Ok(())
    }

    /// Whether the server takes connections (line 8 of `postmaster.pid`, as `pg_ctl` reads it), or how it ended.
    fn started(&self) -> Result<Option<ExitStatus>, String> {
        if let Some(child) = self.postmaster().as_mut()
            && let Ok(Some(status)) = child.try_wait()
        {
            return Ok(Some(status));
        }
        let pid_file = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        match pid_file.lines().nth(7).map(str::trim) {
            Some("ready" | "standby") => Ok(None),
            other => Err(format!("its status is {}", other.unwrap_or("not written yet"))),
        }
    }

    fn postmaster(&self) -> MutexGuard<'_, Option<Child>> {
        self.postmaster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reaps the ended postmaster.
    fn forget(&self) {
        if let Some(mut child) = self.postmaster().take() {
            let _ = child.wait();
        }
    }

    fn log_path(&self) -> PathBuf {
        self.scratch.path().join(format!("{}.log", self.name))
    }

    fn io(&self, what: &'static str) -> impl FnOnce(io::Error) -> ClusterError + use<> {
        let cluster = self.name.clone();
        move |source| ClusterError::Io { cluster, what, source }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A postmaster that ends by itself reaps its children; those of a killed one stay zombies in containers whose
        // first process reaps nobody. What does not end in time the scratch directory kills.
        servers::end(&self.data);
        if let Some(child) = self.postmaster().as_mut() {
            let _ = child.kill();
        }
        self.forget();
    }
}

/// The end of a log, enough to see why a server did not start.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// A server's error with its SQLSTATE; the driver's own Display hides both.
fn explain(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
}
