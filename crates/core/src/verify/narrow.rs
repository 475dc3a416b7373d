//! Owns finding the rows in which two copies of a table differ: by buckets in one scan, then row by row. Refuses to know
//! the whole table's digest.

use std::collections::{BTreeMap, BTreeSet};

use pgteal_postgres::Session;
use pgteal_postgres::catalog::TableName;
use pgteal_postgres::digest::{self, KeyValues, RowKey};

use super::sandwich::{Verdict, judge};
use super::{Effort, Result, SyncPoint};

/// Two sessions on the same database of two servers, and how to wait between looks.
pub(super) struct Pair<'a> {
    pub(super) from: Session,
    pub(super) to: Session,
    pub(super) sync: &'a dyn SyncPoint,
}

impl Pair<'_> {
    pub(super) async fn sync(&self) -> Result<()> {
        self.sync.reach(self.from.database()).await
    }
}

/// What is left of a table after its equal rows are put aside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rest {
    /// Rows that differ for certain.
    pub(super) mismatched: BTreeSet<KeyValues>,
    /// How many were never quiet long enough.
    pub(super) unsettled: u64,
}

/// Rows per bucket that the number of buckets aims at.
const PER_BUCKET: i64 = 64;
/// Rows of suspicious or busy buckets that are looked at one by one, at most; what is beyond stays unsettled.
const ROWS_AT_ONCE: u32 = 200_000;
/// Rows looked up by key in one query.
const KEYS_AT_ONCE: usize = 5_000;

/// Compares a table by buckets and rows.
pub(super) async fn narrow(
    pair: &Pair<'_>,
    table: &TableName,
    key: &RowKey,
    rows: i64,
    effort: &Effort,
) -> Result<Rest> {
    let buckets = u32::try_from((rows / PER_BUCKET).clamp(64, 65_536)).unwrap_or(65_536);
    let before = digest::buckets(&pair.from, table, key, buckets).await?;
    pair.sync().await?;
    let follower = digest::buckets(&pair.to, table, key, buckets).await?;
    let after = digest::buckets(&pair.from, table, key, buckets).await?;
    let all: BTreeSet<i64> = before.keys().chain(follower.keys()).chain(after.keys()).copied().collect();
    let open = |b: &i64| judge(before.get(b), follower.get(b), after.get(b)) != Verdict::Equal;
    let open: Vec<i64> = all.into_iter().filter(open).collect();
    if open.is_empty() {
        return Ok(Rest::default());
    }
    let here = digest::rows_of_buckets(&pair.from, table, key, buckets, &open, ROWS_AT_ONCE).await?;
    pair.sync().await?;
    let there = digest::rows_of_buckets(&pair.to, table, key, buckets, &open, ROWS_AT_ONCE).await?;
    let cut = here.len().max(there.len()) >= ROWS_AT_ONCE as usize;
    let (here, there): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (here.into_iter().collect(), there.into_iter().collect());
    let keys: BTreeSet<&KeyValues> = here.keys().chain(there.keys()).collect();
    let mut differing: Vec<KeyValues> =
        keys.into_iter().filter(|k| here.get(*k) != there.get(*k)).cloned().collect();
    differing.truncate(ROWS_AT_ONCE as usize);
    let mut rest = by_key(pair, table, key, differing, effort).await?;
    // With the list cut off, rows that stood behind the cut have not been looked at.
    rest.unsettled += u64::from(cut);
    Ok(rest)
}

/// Looks at single rows until each is equal, differs for certain, or the attempts are used up.
async fn by_key(
    pair: &Pair<'_>,
    table: &TableName,
    key: &RowKey,
    differing: Vec<KeyValues>,
    effort: &Effort,
) -> Result<Rest> {
    let mut rest = Rest::default();
    for chunk in differing.chunks(KEYS_AT_ONCE) {
        let mut open: BTreeMap<KeyValues, u32> = chunk.iter().map(|k| (k.clone(), 0)).collect();
        for _ in 0..effort.attempts.max(effort.suspicions) {
            if open.is_empty() {
                break;
            }
            let keys: Vec<KeyValues> = open.keys().cloned().collect();
            let before = digest::rows_by_key(&pair.from, table, key, &keys).await?;
            pair.sync().await?;
            let follower = digest::rows_by_key(&pair.to, table, key, &keys).await?;
            let after = digest::rows_by_key(&pair.from, table, key, &keys).await?;
            open.retain(|k, suspicions| match judge(before.get(k), follower.get(k), after.get(k)) {
                Verdict::Equal => false,
                Verdict::Busy => true,
                Verdict::Suspicious => {
                    *suspicions += 1;
                    let certain = *suspicions >= effort.suspicions;
                    if certain {
                        rest.mismatched.insert(k.clone());
                    }
                    !certain
                }
            });
        }
        rest.unsettled += open.len() as u64;
    }
    Ok(rest)
}
