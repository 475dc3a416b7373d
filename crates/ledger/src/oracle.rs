//! Proves what became of a run: works out again from the record what every transaction did, reads the database, and
//! names each difference. Owns the proof; refuses to know which server it reads and how clients got there.

mod expected;
mod findings;
mod found;
mod judge_accounts;
mod judge_entries;
mod judge_things;

use tokio_postgres::Client;

use crate::book::Book;
use crate::record::{Outcome, Record};
use crate::verdict::Verdict;

use expected::Expected;
use findings::Findings;
use found::Found;

/// The database could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    /// A query failed.
    #[error("the oracle could not read {table}: {source}")]
    Read { table: String, source: tokio_postgres::Error },
    /// The workload wrote to billing and no connection to it was given.
    #[error("the workload had sessions on billing: a connection to it is needed")]
    NoBilling,
}

/// Proves what became of a run.
#[derive(Debug)]
pub struct Oracle<'a> {
    record: &'a Record,
}

impl<'a> Oracle<'a> {
    /// An oracle over what the clients saw.
    pub fn new(record: &'a Record) -> Self {
        Oracle { record }
    }

    /// Reads the active side, in one snapshot for each database, and compares. `billing` is needed if the workload had
    /// sessions there. Rows of other workloads and rows that were there before are not looked at.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub async fn check(&self, shop: &Client, billing: Option<&Client>) -> Result<Verdict, OracleError> {
        let mut findings = Findings::default();
        for book in [Book::Shop, Book::Billing] {
            if self.record.layout.sessions(book).is_empty() {
                continue;
            }
            let client = match book {
                Book::Shop => shop,
                Book::Billing => billing.ok_or(OracleError::NoBilling)?,
            };
            let found = Found::read(client, book, &self.record.layout).await?;
            let expected = Expected::work_out(self.record, book, |session, seq| found.entered(session, seq));
            judge_entries::judge(self.record, book, &expected, &found, &mut findings);
            judge_things::judge(book, &expected, &found, &mut findings);
            judge_accounts::judge(book, &expected, &found, &mut findings);
        }
        Ok(self.verdict(findings))
    }

    fn verdict(&self, findings: Findings) -> Verdict {
        let mut verdict = findings.into_verdict();
        for session in &self.record.sessions {
            verdict.anomalies += session.anomaly_count;
            verdict.examples.extend(session.anomalies.iter().take(2).cloned());
        }
        verdict.examples.truncate(findings::EXAMPLES_LIMIT);
        verdict.errors = self.record.errors();
        verdict.connections_dropped = self.record.connections_dropped;
        verdict.truncated = self.record.truncated;
        verdict
    }
}

/// A transaction by session and number.
type Place = (i64, i64);

/// Whether a transaction has its effects in the database, as far as its client and its ledger entry say.
fn applied(outcome: Outcome, entered: bool) -> bool {
    match outcome {
        Outcome::Acked => true,
        Outcome::Failed(_) => false,
        Outcome::Unknown(_) => entered,
    }
}
