//! Owns what a `WARM` does before anybody is looked at: for each database, one session has its functions read, so that all
//! its sessions know which texts touch what they hold.
//! A database that could not be read is one whose every statement does: more is looked at, nothing is missed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::registry::{Command, Entry};
use crate::route::Side;
use crate::session::Vocabulary;
use crate::shared::Shared;

/// All databases together.
const MOST: Duration = Duration::from_secs(5);
/// Sessions of one database that are asked.
const ASKED: usize = 4;

pub(super) async fn learn(shared: &Shared, entries: &[Arc<Entry>], other: Side, limit: Duration) {
    let deadline = Instant::now() + limit.min(MOST);
    let mut databases: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        databases.entry(&entry.database).or_default().push(entry);
    }
    let mut learned = HashMap::new();
    for (database, entries) in databases {
        // While clients wait there is no time to read, and little that was said since they do.
        if !shared.gate.is_closed()
            && let Some(words) = of_one(&entries, other, deadline).await
        {
            learned.insert(database.to_owned(), words);
        } else {
            tracing::warn!(database, "every statement counts as one that may change its session");
        }
    }
    shared.warm_side.learned(learned);
}

async fn of_one(entries: &[&Entry], other: Side, deadline: Instant) -> Option<Arc<Vocabulary>> {
    for entry in entries.iter().take(ASKED) {
        let (reply, mut answer) = mpsc::channel(1);
        if entry.tell(Command::Learn { other, reply })
            && let Ok(Some(words)) = tokio::time::timeout_at(deadline, answer.recv()).await
        {
            return Some(words);
        }
    }
    None
}
