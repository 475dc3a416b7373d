//! Owns what a `WARM` does before anybody is looked at: for each database, one session has its functions read, so that all
//! its sessions know which texts touch what they hold.
//! A database that could not be read is one whose every statement does: more is looked at. What is missed there is only a
//! custom setting whose name no client has said.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::registry::{Command, Entry};
use crate::route::Side;
use crate::session::Vocabulary;
use crate::shared::Shared;

/// All databases together. Nobody waits but the operator, and what is not read in time may cost a session a setting.
const MOST: Duration = Duration::from_secs(15);
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
        // Nobody would wait for what begins now.
        if Instant::now() >= deadline {
            return None;
        }
        let (reply, mut answer) = mpsc::channel(1);
        if entry.tell(Command::Learn { other, reply })
            && let Ok(Some(words)) = tokio::time::timeout_at(deadline, answer.recv()).await
        {
            return Some(words);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU64};

    use super::*;
    use crate::mailbox::Mailbox;
    use crate::registry::{Details, Tally};

    fn entry(id: u64) -> Entry {
        Entry {
            id,
            user: String::new(),
            database: String::new(),
            application_name: String::new(),
            route: crate::route::Route::Write,
            client_addr: String::new(),
            key: None,
            inside_since: AtomicU64::new(0),
            held: AtomicBool::new(false),
            held_since: AtomicU64::new(0),
            held_bytes: AtomicU64::new(0),
            stale: AtomicBool::new(false),
            queries: AtomicU64::new(0),
            received: Tally::default(),
            sent: Tally::default(),
            details: Mutex::new(Details::default()),
            mailbox: Mailbox::default(),
        }
    }

    #[tokio::test]
    async fn nobody_is_asked_after_the_deadline() {
        let (first, second) = (entry(1), entry(2));
        let entries = [&first, &second];
        let past = Instant::now();
        assert!(of_one(&entries, Side::Green, past).await.is_none());
        assert!(first.mailbox.take().is_none(), "asked after the deadline");
        // The first lets it pass.
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(of_one(&entries, Side::Green, soon).await.is_none());
        let Some(Command::Learn { reply, .. }) = first.mailbox.take() else {
            panic!("the first is not asked")
        };
        assert!(reply.is_closed(), "somebody waits after the deadline");
        assert!(second.mailbox.take().is_none(), "the second is asked after the deadline");
    }
}
