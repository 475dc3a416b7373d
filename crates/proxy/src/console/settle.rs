//! Owns `SETTLE`: while held, waits until every session whose second upstream fell behind, or failed, has tried to bring
//! it up to date, and every session that holds advisory locks has taken them on the other side.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use super::answer::{Answer, Refusal};
use super::{census, round};
use crate::registry::{Entry, WarmState};
use crate::shared::Shared;

pub(super) async fn settle(shared: &Shared, epoch: u64, limit: Duration) -> Result<Answer, Refusal> {
    shared.gate.held_by(epoch)?;
    if let Some(side) = shared.warm_side() {
        shared.mark_left();
        let behind: Vec<_> = shared.registry.all().into_iter().filter(is_behind).collect();
        if !behind.is_empty() {
            round::tell(shared, &behind, side, limit, None).await;
        }
        if let Some(why) = shared.reads.refusal(side) {
            // They took readers when these were made ready. Said at the end: whoever goes on all the same needs the rest.
            return Err(Refusal::not_now(format!("{why}; and reads.fallback is \"refuse\"")));
        }
    }
    let census = census(shared);
    Ok(Answer::one([
        ("warm", census.warm.to_string()),
        ("stale", census.stale.to_string()),
        ("failed", census.failed.to_string()),
        ("pinned", census.pinned.to_string()),
        ("unready", census.unready.to_string()),
    ]))
}

fn is_behind(entry: &Arc<Entry>) -> bool {
    let details = entry.details();
    if details.locks {
        // Until it says that it has them.
        entry.stale.store(true, Relaxed);
    }
    entry.stale.load(Acquire) || matches!(details.warm, WarmState::Failed(_))
}
