//! Owns `HOLD`: from its answer on no transaction begins, until release or the limit. Answers at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::{Answer, Refusal};
use crate::gate::{Effect, Event};
use crate::proxy::refresh_stale;
use crate::shared::Shared;

pub(super) fn hold(
    shared: &Arc<Shared>,
    epoch: u64,
    limit: Duration,
    run: String,
) -> Result<Answer, Refusal> {
    let longest = shared.config.limits.hold_limit_max_ms;
    if limit.is_zero() || limit > Duration::from_millis(longest) {
        return Err(Refusal::value(format!("LIMIT must lie between 1 and {longest} ms")));
    }
    let effect = shared.gate.drive(&Event::Hold { epoch, run, limit }, Instant::now(), |_, _| Ok(()))?;
    let busy = shared.gate.busy();
    if effect == Effect::Closed {
        refresh_stale(shared);
        // They are gone before anybody counts who is left on a side, and no process exits in the pause.
        shared.pool.hold().into_iter().for_each(|upstream| shared.farewell.leave(upstream));
        let recorder = Arc::clone(&shared.recorder);
        if let Err(error) = recorder.epoch(epoch) {
            tracing::warn!(%error, "the epoch cannot be recorded");
        }
        tokio::task::spawn_blocking(move || recorder.sync());
    }
    let clients = shared.registry.len();
    let held = clients.saturating_sub(usize::try_from(busy).unwrap_or(usize::MAX));
    Ok(Answer::one([("held", held.to_string()), ("busy", busy.to_string())]))
}
