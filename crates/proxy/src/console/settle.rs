//! Owns `SETTLE`: while held, waits until every session whose second upstream fell behind has brought it up to date.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::answer::{Answer, Refusal};
use super::{census, warm};
use crate::shared::Shared;

pub(super) async fn settle(shared: &Shared, epoch: u64, limit: Duration) -> Result<Answer, Refusal> {
    shared.gate.held_by(epoch)?;
    let mut failed = 0;
    if let Some(side) = shared.warm_side() {
        let behind: Vec<_> =
            shared.registry.all().into_iter().filter(|entry| entry.stale.load(Relaxed)).collect();
        if !behind.is_empty() {
            failed = warm::tell(shared, &behind, side, limit).await.failed;
        }
    }
    let census = census(shared);
    Ok(Answer::one([
        ("warm", census.warm.to_string()),
        ("stale", census.stale.to_string()),
        ("failed", failed.to_string()),
    ]))
}
