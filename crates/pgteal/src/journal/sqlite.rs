//! The journal of the process that drives.
//! Refuses to be opened twice at a time.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jiff::Timestamp;
use pgteal_saga::{DeploymentId, Durability, Epoch, Event, Journal, JournalError, Lease, RunId, RunSummary};

use super::store::Batch;
use super::writer::{Ask, Writer};

/// The journal in a SQLite file, held by this process until it is dropped.
#[derive(Debug)]
pub struct SqliteJournal {
    path: PathBuf,
    writer: Writer,
}

impl SqliteJournal {
    /// Opens the journal at `path` for this process alone; makes the file if it is not there, but no directory.
    ///
    /// # Errors
    /// [`JournalError::Locked`] if another process has it; [`JournalError::NotAJournal`], [`JournalError::TooNew`],
    /// [`JournalError::Corrupt`], [`JournalError::ReadOnly`], [`JournalError::Full`] for what is found at the path;
    /// [`JournalError::Unfit`] if the SQLite that is built in is too old.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let path = path.into();
        let opened = path.clone();
        let started = tokio::task::spawn_blocking(move || Writer::start(&opened)).await;
        let writer = started.map_err(|error| JournalError::Io {
            place: path.display().to_string(),
            what: error.to_string(),
        })??;
        Ok(Self { path, writer })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(test)]
    pub(super) async fn limit_pages(&self, more: i64) -> Result<(), JournalError> {
        self.writer.ask(|answer| Ask::LimitPages(more, answer)).await
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn append(
        &self,
        run: &RunId,
        epoch: Epoch,
        expected_seq: u64,
        events: &[Event],
        durability: Durability,
    ) -> Result<u64, JournalError> {
        let (run, events) = (run.clone(), events.to_vec());
        let batch = Batch { run, epoch, expected_seq, events, durability };
        self.writer.ask(|answer| Ask::Append(batch, answer)).await
    }

    async fn load(&self, run: &RunId) -> Result<Vec<Event>, JournalError> {
        self.writer.ask(|answer| Ask::Load(run.clone(), answer)).await
    }

    async fn runs(&self) -> Result<Vec<RunSummary>, JournalError> {
        self.writer.ask(Ask::Runs).await
    }

    async fn acquire(
        &self,
        deployment: &DeploymentId,
        holder: &str,
        at: Timestamp,
    ) -> Result<Lease, JournalError> {
        let (deployment, holder) = (deployment.clone(), holder.to_owned());
        self.writer.ask(|answer| Ask::Acquire { deployment, holder, at, answer }).await
    }

    async fn lease(&self, deployment: &DeploymentId) -> Result<Option<Lease>, JournalError> {
        self.writer.ask(|answer| Ask::Lease(deployment.clone(), answer)).await
    }
}
