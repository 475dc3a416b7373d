//! What a journal is: an append-only record of runs, and the lease that says who may write it.
//! Refuses to know where it is kept.

use async_trait::async_trait;
use jiff::Timestamp;

use crate::event::{Event, EventBody};
use crate::ids::{DeploymentId, Epoch, RunId};

/// When an append must be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before `append` returns, and everything appended before it.
    Sync,
    /// Survives the death of the process at once, that of the machine with the next [`Durability::Sync`].
    Deferred,
}

/// Who may drive the runs of a deployment. The epoch turns away whoever held it before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Higher than any that this journal has given, whatever the deployment, beginning with 1: what a controller drives may
    /// outlive deployments and remember their epochs.
    pub epoch: Epoch,
    /// Who took it, for people.
    pub holder: String,
    /// When.
    pub acquired_at: Timestamp,
}

/// One run, without its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// The run.
    pub run: RunId,
    /// The deployment it belongs to.
    pub deployment: DeploymentId,
    /// Its kind: `up`, `switch`.
    pub kind: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// The number of its last event.
    pub seq: u64,
}

/// Why a journal did not do what it was asked. In each case nothing was appended, except where it says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Somebody else appended in between.
    #[error("run {run}: event {expected} was expected to be the last, but it is {found}")]
    Conflict {
        /// The run.
        run: RunId,
        /// The last event the writer knew.
        expected: u64,
        /// The last event there is.
        found: u64,
    },
    /// The writer's epoch is not the deployment's newest.
    #[error("deployment {deployment}: epoch {given} is not valid, the lease is at epoch {current}")]
    StaleEpoch {
        /// The deployment.
        deployment: DeploymentId,
        /// The writer's epoch.
        given: Epoch,
        /// The newest epoch.
        current: Epoch,
    },
    /// There is no such run.
    #[error("the journal {place} has no run {run}")]
    UnknownRun {
        /// Where the journal is.
        place: String,
        /// The run.
        run: RunId,
    },
    /// Another process holds the journal.
    #[error("the journal {place} is in use by {holder}")]
    Locked {
        /// Where the journal is.
        place: String,
        /// What is known of the other.
        holder: String,
    },
    /// There is no journal.
    #[error("there is no journal at {place}")]
    Missing {
        /// Where it was looked for.
        place: String,
    },
    /// It is something else.
    #[error("{place} is not a journal: {what}")]
    NotAJournal {
        /// Where.
        place: String,
        /// What was found.
        what: String,
    },
    /// It was written by a newer program.
    #[error("the journal {place} has format {found}, this program knows formats up to {known}")]
    TooNew {
        /// Where the journal is.
        place: String,
        /// Its format.
        found: i64,
        /// The newest known.
        known: i64,
    },
    /// What is stored is not what was written.
    #[error("the journal {place} is damaged: {what}")]
    Corrupt {
        /// Where the journal is.
        place: String,
        /// What does not fit.
        what: String,
    },
    /// No room.
    #[error("the disk of the journal {place} is full")]
    Full {
        /// Where the journal is.
        place: String,
    },
    /// It may not be written.
    #[error("the journal {place} cannot be written: {what}")]
    ReadOnly {
        /// Where the journal is.
        place: String,
        /// Why.
        what: String,
    },
    /// The journal's software is too old to be trusted.
    #[error("{what}")]
    Unfit {
        /// Which, and what is needed.
        what: String,
    },
    /// Reading or writing failed. An append may or may not be found there after the journal is opened again.
    #[error("the journal {place} failed: {what}")]
    Io {
        /// Where the journal is.
        place: String,
        /// How.
        what: String,
    },
    /// The caller's events do not follow each other, or are not of this run.
    #[error("run {run}: the events to append do not fit: {what}")]
    Malformed {
        /// The run.
        run: RunId,
        /// What does not fit.
        what: String,
    },
}

impl JournalError {
    /// Whether somebody else drives the run now, so that this driver must not touch the world again.
    pub fn is_turned_away(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::StaleEpoch { .. })
    }
}

/// An append-only record. Every implementation must pass [`crate::proof::conformance`].
#[async_trait]
pub trait Journal: Send + Sync {
    /// Appends `events`, all or none, after event `expected_seq` of `run` (0 for a new run, whose first event must be
    /// `RunCreated`), if `epoch` is the newest of the run's deployment. Returns the number of the last event.
    ///
    /// # Errors
    /// [`JournalError::StaleEpoch`] before [`JournalError::Conflict`]; then what the medium says.
    async fn append(
        &self,
        run: &RunId,
        epoch: Epoch,
        expected_seq: u64,
        events: &[Event],
        durability: Durability,
    ) -> Result<u64, JournalError>;

    /// Every event of `run`, in order.
    ///
    /// # Errors
    /// [`JournalError::UnknownRun`]; [`JournalError::Corrupt`] if an event is missing, altered or out of place.
    async fn load(&self, run: &RunId) -> Result<Vec<Event>, JournalError>;

    /// Every run, oldest first.
    ///
    /// # Errors
    /// What the medium says.
    async fn runs(&self) -> Result<Vec<RunSummary>, JournalError>;

    /// Takes the lease of `deployment` for `holder` under a new epoch, the highest of the journal. Whoever held it is turned
    /// away from then on.
    ///
    /// # Errors
    /// [`JournalError::Locked`] if the journal can tell that another holder is alive; else what the medium says.
    async fn acquire(
        &self,
        deployment: &DeploymentId,
        holder: &str,
        at: Timestamp,
    ) -> Result<Lease, JournalError>;

    /// The newest lease of `deployment`, if it was ever taken.
    ///
    /// # Errors
    /// What the medium says.
    async fn lease(&self, deployment: &DeploymentId) -> Result<Option<Lease>, JournalError>;
}

/// Whether `events` may be appended after `expected_seq` as far as that shows without a look at the journal: they are
/// numbered in a row, carry `epoch`, and `RunCreated` is first and nowhere else. Returns the number of the last one.
/// Every implementation calls it first.
///
/// # Errors
/// [`JournalError::Malformed`].
pub fn check_batch(
    run: &RunId,
    epoch: Epoch,
    expected_seq: u64,
    events: &[Event],
) -> Result<u64, JournalError> {
    let malformed = |what: String| JournalError::Malformed { run: run.clone(), what };
    if events.is_empty() {
        return Err(malformed("there are none".into()));
    }
    for (seq, event) in (expected_seq + 1..).zip(events) {
        if event.seq != seq {
            return Err(malformed(format!("event {} stands where event {seq} belongs", event.seq)));
        }
        if event.epoch != epoch {
            return Err(malformed(format!("event {seq} carries epoch {}, not {epoch}", event.epoch)));
        }
        if matches!(event.body, EventBody::RunCreated { .. }) != (seq == 1) {
            return Err(malformed(format!("event {seq} is {}", event.body.name())));
        }
    }
    Ok(expected_seq + events.len() as u64)
}
