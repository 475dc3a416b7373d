//! Owns building many entries at once: a few sessions that each take the next entry. Refuses to know which entries and
//! why in this order.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::try_join_all;
use pgteal_postgres::{Purpose, SqlState};

use super::{Counter, Site, run};
use crate::carry::dump::Script;
use crate::carry::{CarryError, Result};

/// Two foreign keys between the same tables, or one and an apply worker, may lock in opposite orders; the server ends one.
const DEADLOCK_RETRIES: usize = 10;

/// Builds `entries` with as many sessions as the site has jobs. Returns those that need something that is not there yet:
/// pg_dump puts a few views and functions after the rows, and indexes on them come after those.
pub(super) async fn build(
    site: &Site<'_>,
    script: &Script,
    entries: &[usize],
    counter: &Counter<'_>,
) -> Result<Vec<usize>> {
    let next = AtomicUsize::new(0);
    let workers = site.jobs.clamp(1, 64).min(entries.len());
    let crew = (0..workers).map(|_| work(site, script, entries, &next, counter));
    Ok(try_join_all(crew).await?.concat())
}

async fn work(
    site: &Site<'_>,
    script: &Script,
    entries: &[usize],
    next: &AtomicUsize,
    counter: &Counter<'_>,
) -> Result<Vec<usize>> {
    let mut session = site.green.connect(site.database, Purpose::long("indexes")).await?;
    session.batch("setting the session as pg_dump asks", &script.preamble).await?;
    let mut deferred = Vec::new();
    while let Some(&at) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
        let entry = &script.entries[at];
        let mut retries = 0;
        loop {
            match run(&mut session, site, entry).await {
                Ok(()) => break counter.tick(entry),
                Err(e) if is_missing(&e) => break deferred.push(at),
                Err(e) if is_deadlock(&e) && retries < DEADLOCK_RETRIES => retries += 1,
                Err(e) => return Err(e),
            }
        }
    }
    Ok(deferred)
}

fn is_missing(error: &CarryError) -> bool {
    error.server_error().is_some_and(|e| {
        e.is(&SqlState::UNDEFINED_TABLE)
            || e.is(&SqlState::UNDEFINED_FUNCTION)
            || e.is(&SqlState::UNDEFINED_OBJECT)
    })
}

fn is_deadlock(error: &CarryError) -> bool {
    error.server_error().is_some_and(|e| e.is(&SqlState::T_R_DEADLOCK_DETECTED))
}
