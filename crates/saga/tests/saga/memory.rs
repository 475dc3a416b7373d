//! The journal in memory keeps the contract; journals that break a promise are found out.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use pgteal_saga::proof::conformance::{Damage, Subject, prove};
use pgteal_saga::{
    DeploymentId, Durability, Epoch, Event, Journal, JournalError, Lease, MemoryJournal, RunId, RunSummary,
};

/// A promise that a journal breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Broken {
    Nothing,
    Epoch,
    Seq,
    Chain,
    Memory,
    Whole,
    Overlap,
}

struct Flawed {
    inner: Arc<MemoryJournal>,
    broken: Broken,
}

#[async_trait]
impl Journal for Flawed {
    async fn append(
        &self,
        run: &RunId,
        epoch: Epoch,
        expected_seq: u64,
        events: &[Event],
        durability: Durability,
    ) -> Result<u64, JournalError> {
        let mut outcome = self.inner.append(run, epoch, expected_seq, events, durability).await;
        for _ in 0..2 {
            outcome = match (self.broken, outcome) {
                (Broken::Epoch, Err(JournalError::StaleEpoch { current, .. })) if current > Epoch(0) => {
                    let events: Vec<_> =
                        events.iter().cloned().map(|event| Event { epoch: current, ..event }).collect();
                    self.inner.append(run, current, expected_seq, &events, durability).await
                }
                (Broken::Seq, Err(JournalError::Conflict { found, .. })) if expected_seq > 0 => {
                    let events: Vec<_> = (found + 1..)
                        .zip(events)
                        .map(|(seq, event)| Event { seq, ..event.clone() })
                        .collect();
                    self.inner.append(run, epoch, found, &events, durability).await
                }
                (Broken::Overlap, Err(JournalError::Conflict { found, .. })) if events.len() > 1 => {
                    let rest: Vec<_> = events.iter().filter(|event| event.seq > found).cloned().collect();
                    self.inner.append(run, epoch, found, &rest, durability).await
                }
                (Broken::Whole, Err(JournalError::Malformed { .. })) if !events.is_empty() => {
                    self.inner.append(run, epoch, expected_seq, &events[..1], durability).await
                }
                (_, outcome) => return outcome,
            };
        }
        outcome
    }

    async fn load(&self, run: &RunId) -> Result<Vec<Event>, JournalError> {
        self.inner.load(run).await
    }

    async fn runs(&self) -> Result<Vec<RunSummary>, JournalError> {
        self.inner.runs().await
    }

    async fn acquire(&self, id: &DeploymentId, holder: &str, at: Timestamp) -> Result<Lease, JournalError> {
        self.inner.acquire(id, holder, at).await
    }

    async fn lease(&self, id: &DeploymentId) -> Result<Option<Lease>, JournalError> {
        self.inner.lease(id).await
    }
}

struct InMemory {
    journal: Arc<MemoryJournal>,
    broken: Broken,
}

#[async_trait]
impl Subject for InMemory {
    async fn open(&self) -> Result<Arc<dyn Journal>, JournalError> {
        if self.broken == Broken::Memory {
            self.journal.lose_power();
        }
        Ok(Arc::new(Flawed { inner: Arc::clone(&self.journal), broken: self.broken }))
    }

    async fn damage(&self, run: &RunId, damage: Damage) -> Result<(), String> {
        self.journal.damage(run, |lines| match damage {
            Damage::LoseLast => drop(lines.pop()),
            Damage::LoseMiddle => drop(lines.remove(3)),
            Damage::AlterMiddle if self.broken == Broken::Chain => {
                // Whoever rewrites the links as well is not found out: the chain is not a signature.
            }
            Damage::AlterMiddle => lines[3].0 = lines[3].0.replace("step-3", "step-4"),
            Damage::Swap => lines.swap(2, 3),
        });
        Ok(())
    }
}

async fn check(broken: Broken) -> Vec<String> {
    let report = prove(async || Ok(InMemory { journal: Arc::default(), broken })).await;
    report.failures.into_iter().map(|(name, what)| format!("{name}: {what}")).collect()
}

#[tokio::test]
async fn the_journal_in_memory_keeps_the_contract() {
    assert_eq!(check(Broken::Nothing).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_journal_that_breaks_a_promise_is_found_out() {
    let cases = [
        (Broken::Epoch, "a stale epoch changes nothing"),
        (Broken::Seq, "an append after another event is a conflict"),
        (Broken::Chain, "damage is named, not read over"),
        (Broken::Memory, "everything is there after it was opened again"),
        (Broken::Whole, "events that do not fit are refused whole"),
        (Broken::Overlap, "of several events all are appended or none"),
    ];
    for (broken, promise) in cases {
        let failures = check(broken).await;
        assert!(failures.iter().any(|line| line.starts_with(promise)), "{broken:?}: {failures:#?}");
    }
}
