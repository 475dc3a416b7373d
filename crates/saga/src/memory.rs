//! A journal in memory, for tests and dry runs. Keeps lines as a journal on a disk would.
//! Refuses to be durable.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::event::{Event, EventBody};
use crate::ids::{DeploymentId, Epoch, RunId};
use crate::journal::{Durability, Journal, JournalError, Lease, RunSummary, check_batch};
use crate::stored;

const PLACE: &str = "in memory";

/// A journal in memory.
#[derive(Debug, Default)]
pub struct MemoryJournal(Mutex<Contents>);

#[derive(Debug, Default)]
struct Contents {
    leases: BTreeMap<DeploymentId, Lease>,
    runs: Vec<Run>,
    syncs: u64,
}

#[derive(Debug)]
struct Run {
    summary: RunSummary,
    lines: Vec<(String, stored::Link)>,
    synced: usize,
}

impl MemoryJournal {
    /// An empty journal.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many appends were [`Durability::Sync`].
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Changes the stored lines of `run` behind the journal's back, as a damaged disk would.
    pub fn damage(&self, run: &RunId, change: impl FnOnce(&mut Vec<(String, String)>)) {
        if let Some(run) = self.lock().runs.iter_mut().find(|stored| stored.summary.run == *run) {
            change(&mut run.lines);
        }
    }

    /// Loses what was appended as [`Durability::Deferred`] since the last [`Durability::Sync`], as a machine without power
    /// may.
    pub fn lose_power(&self) {
        let mut contents = self.lock();
        for run in &mut contents.runs {
            run.lines.truncate(run.synced);
            run.summary.seq = run.lines.len() as u64;
        }
        contents.runs.retain(|run| !run.lines.is_empty());
    }

    /// [`Journal::acquire`], for where one cannot wait.
    pub fn take_lease(&self, deployment: &DeploymentId, holder: &str, at: Timestamp) -> Lease {
        let mut contents = self.lock();
        let epoch = contents.leases.values().map(|lease| lease.epoch.0).max().unwrap_or(0) + 1;
        let lease = Lease {
            deployment: deployment.clone(),
            epoch: Epoch(epoch),
            holder: holder.to_owned(),
            acquired_at: at,
        };
        contents.leases.insert(deployment.clone(), lease.clone());
        lease
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn append(
        &self,
        run: &RunId,
        epoch: Epoch,
        expected_seq: u64,
        events: &[Event],
        durability: Durability,
    ) -> Result<u64, JournalError> {
        let last = check_batch(run, epoch, expected_seq, events)?;
        let mut contents = self.lock();
        let known = contents.runs.iter().position(|stored| stored.summary.run == *run);
        let created = known.is_none().then(|| created_by(run, events)).flatten();
        let deployment = match (known, &created) {
            (Some(index), _) => contents.runs[index].summary.deployment.clone(),
            (None, Some(summary)) => summary.deployment.clone(),
            (None, None) => {
                return Err(JournalError::UnknownRun { place: PLACE.into(), run: run.clone() });
            }
        };
        let current = contents.leases.get(&deployment).map_or(Epoch(0), |lease| lease.epoch);
        if epoch != current {
            return Err(JournalError::StaleEpoch { deployment, given: epoch, current });
        }
        let found = known.map_or(0, |index| contents.runs[index].summary.seq);
        if found != expected_seq {
            return Err(JournalError::Conflict { run: run.clone(), expected: expected_seq, found });
        }
        let mut link =
            known.and_then(|i| contents.runs[i].lines.last().map(|(_, l)| l.clone())).unwrap_or_default();
        let mut lines = Vec::with_capacity(events.len());
        for event in events {
            let line = encode(run, event)?;
            link = stored::link(&link, &line);
            lines.push((line, link.clone()));
        }
        match (known, created) {
            (Some(index), _) => {
                contents.runs[index].lines.extend(lines);
                contents.runs[index].summary.seq = last;
            }
            (None, Some(summary)) => {
                contents.runs.push(Run { summary: RunSummary { seq: last, ..summary }, lines, synced: 0 });
            }
            (None, None) => {}
        }
        if durability == Durability::Sync {
            contents.syncs += 1;
            for run in &mut contents.runs {
                run.synced = run.lines.len();
            }
        }
        Ok(last)
    }

    async fn load(&self, run: &RunId) -> Result<Vec<Event>, JournalError> {
        let contents = self.lock();
        let unknown = || JournalError::UnknownRun { place: PLACE.into(), run: run.clone() };
        let stored = contents.runs.iter().find(|stored| stored.summary.run == *run).ok_or_else(unknown)?;
        let lines = stored.lines.iter().map(|(line, link)| (line.as_str(), link.as_str()));
        stored::read_run(lines, stored.summary.seq).map_err(|damage| JournalError::Corrupt {
            place: PLACE.into(),
            what: format!("run {run}, {damage}"),
        })
    }

    async fn runs(&self) -> Result<Vec<RunSummary>, JournalError> {
        Ok(self.lock().runs.iter().map(|stored| stored.summary.clone()).collect())
    }

    async fn acquire(
        &self,
        deployment: &DeploymentId,
        holder: &str,
        at: Timestamp,
    ) -> Result<Lease, JournalError> {
        Ok(self.take_lease(deployment, holder, at))
    }

    async fn lease(&self, deployment: &DeploymentId) -> Result<Option<Lease>, JournalError> {
        Ok(self.lock().leases.get(deployment).cloned())
    }
}

fn created_by(run: &RunId, events: &[Event]) -> Option<RunSummary> {
    let first = events.first()?;
    let EventBody::RunCreated { plan } = &first.body else { return None };
    Some(RunSummary {
        run: run.clone(),
        deployment: plan.deployment().clone(),
        kind: plan.kind().to_owned(),
        created_at: first.at,
        seq: 0,
    })
}

fn encode(run: &RunId, event: &Event) -> Result<String, JournalError> {
    stored::encode(event).map_err(|e| JournalError::Malformed { run: run.clone(), what: e.to_string() })
}
