//! Owns verifying all tables of all databases, several at once. Refuses to decide what a difference means for the run.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures::future::try_join_all;
use pgteal_postgres::digest::{self, Digest, KeyValues};
use pgteal_postgres::{Purpose, Server};

use super::census::{self, Candidate};
use super::narrow::{Pair, Rest, narrow};
use super::report::{Outcome, Report, TableReport};
use super::sandwich::{Verdict, judge};
use super::{Effort, Result, SyncPoint};
use crate::progress::{Progress, Tick, Unit};

/// Compares every table of `databases`. `from` is the leader, whose rows count; `to` follows it.
pub async fn verify(
    from: &Server,
    to: &Server,
    databases: &[String],
    sync: &dyn SyncPoint,
    effort: &Effort,
    progress: &Progress<'_>,
) -> Result<Report> {
    let mut report = Report::default();
    for database in databases {
        let pair = open(from, to, database, sync).await?;
        // What the leader has and the follower does not may still be on its way.
        pair.sync().await?;
        let (candidates, settled) = census::take(&pair.from, &pair.to).await?;
        report.tables.extend(settled);
        let mut pairs = vec![pair];
        while pairs.len() < effort.jobs.clamp(1, 32).min(candidates.len()) {
            pairs.push(open(from, to, database, sync).await?);
        }
        let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let shared =
            Shared { candidates: &candidates, next, done: AtomicU64::new(0), found, effort, progress };
        try_join_all(pairs.iter().map(|pair| shared.work(pair))).await?;
        report.tables.extend(shared.found.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
    report.tables.sort_by(|a, b| (&a.database, &a.table).cmp(&(&b.database, &b.table)));
    Ok(report)
}

async fn open<'a>(from: &Server, to: &Server, database: &str, sync: &'a dyn SyncPoint) -> Result<Pair<'a>> {
    let from = from.connect(database, Purpose::long("verify")).await?;
    Ok(Pair { from, to: to.connect(database, Purpose::long("verify")).await?, sync })
}

/// What the workers of one database share.
struct Shared<'a> {
    candidates: &'a [Candidate],
    next: AtomicUsize,
    done: AtomicU64,
    found: Mutex<Vec<TableReport>>,
    effort: &'a Effort,
    progress: &'a Progress<'a>,
}

impl Shared<'_> {
    async fn work(&self, pair: &Pair<'_>) -> Result<()> {
        while let Some(candidate) = self.candidates.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let report = compare(pair, candidate, self.effort).await?;
            let done = 1 + self.done.fetch_add(1, Ordering::Relaxed);
            let name = format!("{}.{}", report.database, report.table);
            let total = self.candidates.len() as u64;
            (self.progress)(Tick { name: &name, done, total, unit: Unit::Items });
            self.found.lock().unwrap_or_else(PoisonError::into_inner).push(report);
        }
        Ok(())
    }
}

/// Compares one table: first as a whole, and only if that does not settle it by rows.
async fn compare(pair: &Pair<'_>, candidate: &Candidate, effort: &Effort) -> Result<TableReport> {
    let table = &candidate.table;
    let mut suspicions = 0;
    // Without a key there is nothing to narrow to: only patience helps. With one, one busy look is enough.
    let patience =
        if candidate.key.is_some() { effort.suspicions } else { effort.attempts.max(effort.suspicions) };
    let mut last = Digest::default();
    for _ in 0..patience.max(1) {
        let before = digest::table(&pair.from, table).await?;
        pair.sync().await?;
        let follower = digest::table(&pair.to, table).await?;
        if follower == before {
            return Ok(report(pair, candidate, before, Outcome::Matched));
        }
        let after = digest::table(&pair.from, table).await?;
        last = after.clone();
        match judge(Some(&before), Some(&follower), Some(&after)) {
            Verdict::Equal => return Ok(report(pair, candidate, after, Outcome::Matched)),
            Verdict::Suspicious => suspicions += 1,
            Verdict::Busy if candidate.key.is_some() => break,
            Verdict::Busy => {}
        }
    }
    let Some(key) = &candidate.key else {
        let outcome = if suspicions >= effort.suspicions {
            Outcome::Mismatched { rows: None, keys: Vec::new() }
        } else {
            Outcome::Unsettled { rows: None }
        };
        return Ok(report(pair, candidate, last, outcome));
    };
    let rows = candidate.estimated_rows.max(last.rows);
    let rest = narrow(pair, table, key, rows, effort).await?;
    let outcome = conclude(&rest, &key.columns, effort.sample);
    Ok(report(pair, candidate, last, outcome))
}

fn conclude(rest: &Rest, columns: &[String], sample: usize) -> Outcome {
    if !rest.mismatched.is_empty() {
        let keys = rest.mismatched.iter().take(sample).map(|k| describe(columns, k)).collect();
        Outcome::Mismatched { rows: Some(rest.mismatched.len() as u64), keys }
    } else if rest.unsettled > 0 {
        Outcome::Unsettled { rows: Some(rest.unsettled) }
    } else {
        Outcome::Matched
    }
}

/// `id=7, part=x`.
fn describe(columns: &[String], values: &KeyValues) -> String {
    let pair = |(column, value): (&String, &Option<String>)| {
        format!("{column}={}", value.as_deref().unwrap_or("null"))
    };
    columns.iter().zip(values).map(pair).collect::<Vec<_>>().join(", ")
}

fn report(pair: &Pair<'_>, candidate: &Candidate, digest: Digest, outcome: Outcome) -> TableReport {
    TableReport {
        database: pair.from.database().to_owned(),
        table: candidate.table.to_string(),
        rows: Some(digest.rows),
        digest: Some(digest),
        outcome,
    }
}
