//! The journal for whoever only looks: `status`, `runs`, `replay`. Needs no lock, also while another process drives.
//! Refuses to write.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use pgteal_saga::{DeploymentId, Durability, Epoch, Event, Journal, JournalError, Lease, RunId, RunSummary};

use super::schema;
use super::store::Store;

/// A journal that is only read.
#[derive(Debug, Clone)]
pub struct JournalReader {
    path: PathBuf,
    store: Arc<Mutex<Store>>,
}

impl JournalReader {
    /// Opens the journal at `path` for reading.
    ///
    /// # Errors
    /// [`JournalError::Missing`] if there is none; else as [`SqliteJournal::open`](super::SqliteJournal::open), but
    /// never [`JournalError::Locked`] for another process that drives.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let path = path.into();
        let opened = path.clone();
        let open = move || schema::open_to_read(&opened).map(|connection| Store::new(&opened, connection));
        let store = blocking(&path, open).await?;
        Ok(Self { path, store: Arc::new(Mutex::new(store)) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Store) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let store = Arc::clone(&self.store);
        blocking(&self.path, move || look(&store.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    fn refusal(&self) -> JournalError {
        JournalError::ReadOnly {
            place: self.path.display().to_string(),
            what: "it was opened for reading".into(),
        }
    }
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| JournalError::Io { place: path.display().to_string(), what: error.to_string() })?
}

#[async_trait]
impl Journal for JournalReader {
    async fn append(
        &self,
        _run: &RunId,
        _epoch: Epoch,
        _expected_seq: u64,
        _events: &[Event],
        _durability: Durability,
    ) -> Result<u64, JournalError> {
        Err(self.refusal())
    }

    async fn load(&self, run: &RunId) -> Result<Vec<Event>, JournalError> {
        let run = run.clone();
        self.read(move |store| store.load(&run)).await
    }

    async fn runs(&self) -> Result<Vec<RunSummary>, JournalError> {
        self.read(Store::runs).await
    }

    async fn acquire(
        &self,
        _deployment: &DeploymentId,
        _holder: &str,
        _at: Timestamp,
    ) -> Result<Lease, JournalError> {
        Err(self.refusal())
    }

    async fn lease(&self, deployment: &DeploymentId) -> Result<Option<Lease>, JournalError> {
        let deployment = deployment.clone();
        self.read(move |store| store.lease(&deployment)).await
    }
}
