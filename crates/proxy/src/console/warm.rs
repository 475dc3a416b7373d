//! Owns `WARM`: every session is looked at unless nothing ran in it since the last look; and every idle session's upstream on the
//! other side is opened, logged in and brought to the session's state, in turns, so that those who work meanwhile hardly
//! notice. From then on a session is looked at again when it says a word that touches sessions.
//! Sessions inside a transaction do it at its end, sessions that come later when they come.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::{Answer, Refusal};
use super::pace::Pace;
use super::{round, warm_words};
use crate::route::Side;
use crate::shared::Shared;

pub(super) async fn warm(
    shared: &Arc<Shared>,
    side: Side,
    epoch: u64,
    limit: Duration,
) -> Result<Answer, Refusal> {
    shared.gate.claim_to_hold(epoch)?;
    if shared.server(side).is_none() {
        return Err(Refusal::not_now(format!("there is no {side} server in the configuration")));
    }
    if shared.gate.course().side == side {
        return Err(Refusal::not_now(format!("clients are on {side} already")));
    }
    if let Some(why) = shared.reads.refusal(side) {
        // Also when nobody reads now: those who come after the switch would be refused.
        return Err(Refusal::not_now(format!("{why}; and reads.fallback is \"refuse\"")));
    }
    let began = Instant::now();
    // With no session there is nothing else that would find out before everybody is over there.
    shared.login.rehearse(side, limit).await.map_err(Refusal::not_now)?;
    let limit = limit.saturating_sub(began.elapsed());
    let recorder = Arc::clone(&shared.recorder);
    let written = tokio::task::spawn_blocking(move || {
        recorder.epoch(epoch)?;
        recorder.sync()
    })
    .await;
    match written {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(Refusal::not_now(error.to_string())),
        Err(error) => return Err(Refusal::not_now(error.to_string())),
    }
    // Who was there before has left connections there that are not closed yet.
    shared.farewell.make_room(side).await;
    let began = Instant::now();
    warm_words::learn(shared, &shared.registry.all(), side, limit / 4).await;
    shared.warm_side.set(Some(side));
    if let Err(barred) = shared.gate.may_hold() {
        // Somebody takes over meanwhile, and who does forgets the side as well: one of the two comes last.
        shared.warm_side.set(None);
        return Err(barred.into());
    }
    let entries = shared.registry.all();
    let limit = limit.saturating_sub(began.elapsed());
    let pace = Pace::new(Instant::now(), limit, shared.config.limits.warm_concurrency);
    let warmed = round::tell(shared, &entries, side, limit, Some(pace)).await;
    Ok(Answer::one([
        ("sessions", entries.len().to_string()),
        ("warm", warmed.warm.to_string()),
        ("pinned", warmed.pinned.to_string()),
        ("failed", warmed.failed.to_string()),
        ("failed_reason", warmed.failed_reason),
    ]))
}
