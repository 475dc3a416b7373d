//! What the sessions saw: one compact entry for each transaction. Owns the record's shape and its limits; refuses to
//! know what the database holds.

use std::collections::BTreeMap;

use crate::book::Book;
use crate::dialect::Dialect;
use crate::layout::Layout;
use crate::window::{Histogram, WindowReport};

/// How many different errors one session tells apart; later ones are counted under the last.
const FAULTS_LIMIT: usize = 256;

/// How many anomalies a session describes; later ones are only counted.
const ANOMALIES_LIMIT: usize = 16;

/// How a transaction ended for the client. The number leads into [`SessionRecord::faults`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server confirmed the commit.
    Acked,
    /// Certainly no effect: refused, or the connection was lost before COMMIT was sent.
    Failed(u16),
    /// The connection broke, or the limit passed, after COMMIT was sent.
    Unknown(u16),
}

/// One transaction; its seq is its place in the list plus one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Microseconds since the workload began, when the first statement was sent.
    pub(crate) sent_us: u64,
    /// Microseconds from when the transaction was due until it was sent.
    pub(crate) lag_us: u32,
    /// Microseconds from sent to the outcome.
    pub(crate) latency_us: u32,
    /// The sequence-fed number the server returned, 0 if none came.
    pub(crate) entry_no: i64,
    pub(crate) outcome: Outcome,
}

/// An error as a client saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// SQLSTATE, or `lost` (connection broke without one), `limit` (our own time limit).
    pub(crate) sqlstate: String,
    pub(crate) message: String,
}

/// Everything one session saw.
#[derive(Debug)]
pub(crate) struct SessionRecord {
    pub(crate) session: u32,
    pub(crate) book: Book,
    pub(crate) dialect: Dialect,
    pub(crate) entries: Vec<Entry>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) anomalies: Vec<String>,
    pub(crate) anomaly_count: u64,
}

impl SessionRecord {
    pub(crate) fn new(session: u32, book: Book, dialect: Dialect) -> Self {
        let (entries, faults, anomalies) = (Vec::new(), Vec::new(), Vec::new());
        SessionRecord { session, book, dialect, entries, faults, anomalies, anomaly_count: 0 }
    }

    pub(crate) fn fault(&mut self, fault: Fault) -> u16 {
        let same = |known: &Fault| known == &fault;
        let index = self.faults.iter().position(same).unwrap_or_else(|| {
            if self.faults.len() < FAULTS_LIMIT {
                self.faults.push(fault);
            }
            self.faults.len() - 1
        });
        index as u16
    }

    pub(crate) fn anomaly(&mut self, text: String) {
        self.anomaly_count += 1;
        if self.anomalies.len() < ANOMALIES_LIMIT {
            self.anomalies.push(text);
        }
    }

    pub(crate) fn fault_at(&self, index: u16) -> Option<&Fault> {
        self.faults.get(usize::from(index))
    }
}

/// The record of a whole run: what every client session sent and was told. The oracle's only witness.
#[derive(Debug)]
pub struct Record {
    pub(crate) layout: Layout,
    pub(crate) sessions: Vec<SessionRecord>,
    pub(crate) connections_dropped: u64,
    pub(crate) connect_failures: BTreeMap<String, u64>,
    pub(crate) truncated: bool,
}

impl Record {
    /// Transactions that were confirmed to a client, reads included.
    pub fn acknowledged(&self) -> u64 {
        self.count(|outcome| outcome == Outcome::Acked)
    }

    /// Transactions that were refused or broken before their COMMIT was sent.
    pub fn failed(&self) -> u64 {
        self.count(|outcome| matches!(outcome, Outcome::Failed(_)))
    }

    /// Transactions whose connection broke after COMMIT was sent.
    pub fn unknown(&self) -> u64 {
        self.count(|outcome| matches!(outcome, Outcome::Unknown(_)))
    }

    /// Established connections that were lost without the workload closing them.
    pub fn connections_dropped(&self) -> u64 {
        self.connections_dropped
    }

    /// Sessions that took part.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// How many transactions went wrong (failed or unknown), by SQLSTATE, or `lost` and `limit` where no
    /// SQLSTATE exists; attempts to connect that were refused are there as `connect <sqlstate>`.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        let mut errors: BTreeMap<String, u64> = BTreeMap::new();
        for session in &self.sessions {
            for entry in &session.entries {
                if let Outcome::Failed(index) | Outcome::Unknown(index) = entry.outcome
                    && let Some(fault) = session.fault_at(index)
                {
                    *errors.entry(fault.sqlstate.clone()).or_default() += 1;
                }
            }
        }
        for (sqlstate, count) in &self.connect_failures {
            *errors.entry(format!("connect {sqlstate}")).or_default() += count;
        }
        errors
    }

    /// The first few errors in words, with the session and transaction that met them.
    pub fn error_examples(&self, limit: usize) -> Vec<String> {
        let faults = self.sessions.iter().flat_map(|session| {
            session.entries.iter().enumerate().filter_map(move |(index, entry)| match entry.outcome {
                Outcome::Acked => None,
                Outcome::Failed(fault) | Outcome::Unknown(fault) => {
                    let fault = session.fault_at(fault)?;
                    let at = entry.sent_us / 1_000;
                    let (number, dialect) = (session.session, session.dialect);
                    let seq = index + 1;
                    let Fault { sqlstate, message } = fault;
                    Some(format!(
                        "session {number} ({dialect}), transaction {seq} at {at} ms: {sqlstate}: {message}"
                    ))
                }
            })
        });
        faults.take(limit).collect()
    }

    /// What clients saw of the transactions under way at any instant from `from_us` to `to_us` of the workload's
    /// clock (microseconds, see `Workload::now_us`). Use it to give each cutover its own longest stall afterwards.
    pub fn window(&self, from_us: u64, to_us: u64) -> WindowReport {
        let mut histogram = Histogram::default();
        let mut report = WindowReport { from_us, to_us, ..WindowReport::default() };
        for entry in self.sessions.iter().flat_map(|session| &session.entries) {
            let ended_us = entry.sent_us + u64::from(entry.latency_us);
            if ended_us < from_us || entry.sent_us > to_us {
                continue;
            }
            let latency_us = u64::from(entry.latency_us);
            report.take_in(entry.outcome, latency_us + u64::from(entry.lag_us), latency_us);
            histogram.add(latency_us);
        }
        report.p50_us = histogram.quantile(0.50);
        report.p99_us = histogram.quantile(0.99);
        report
    }

    fn count(&self, wanted: impl Fn(Outcome) -> bool) -> u64 {
        let entries = self.sessions.iter().flat_map(|session| &session.entries);
        entries.filter(|entry| wanted(entry.outcome)).count() as u64
    }
}
