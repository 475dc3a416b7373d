//! Owns `WARM`: every idle session's upstream on the other side is opened, logged in and brought to the session's state.
//! Sessions inside a transaction do it at its end, sessions that come later when they come.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::answer::{Answer, Refusal};
use crate::registry::{Command, Entry, WarmAnswer};
use crate::route::Side;
use crate::shared::Shared;

/// A transaction open for longer than this is not waited for.
const LONG: Duration = Duration::from_millis(500);
/// How often the list of those that are waited for is looked at again.
const LOOK: Duration = Duration::from_millis(20);

/// What came of telling sessions to warm.
#[derive(Debug, Default)]
pub(super) struct Warmed {
    pub(super) warm: usize,
    pub(super) pinned: usize,
    pub(super) failed: usize,
    pub(super) failed_reason: String,
}

pub(super) async fn warm(
    shared: &Arc<Shared>,
    side: Side,
    epoch: u64,
    limit: Duration,
) -> Result<Answer, Refusal> {
    shared.gate.claim(epoch)?;
    if shared.server(side).is_none() {
        return Err(Refusal::not_now(format!("there is no {side} server in the configuration")));
    }
    if shared.gate.course().side == side {
        return Err(Refusal::not_now(format!("clients are on {side} already")));
    }
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
    shared.warm_side.set(Some(side));
    let entries = shared.registry.all();
    let warmed = tell(shared, &entries, side, limit).await;
    Ok(Answer::one([
        ("sessions", entries.len().to_string()),
        ("warm", warmed.warm.to_string()),
        ("pinned", warmed.pinned.to_string()),
        ("failed", warmed.failed.to_string()),
        ("failed_reason", warmed.failed_reason),
    ]))
}

/// Tells sessions, and waits for their answers; not for sessions in a long transaction, and no longer than `limit`.
pub(super) async fn tell(shared: &Shared, entries: &[Arc<Entry>], side: Side, limit: Duration) -> Warmed {
    let deadline = Instant::now() + limit;
    let (reply, mut answers) = mpsc::channel(entries.len().max(1));
    for entry in entries {
        entry.tell(Command::Warm { side, reply: Some(reply.clone()) });
    }
    drop(reply);
    let mut warmed = Warmed::default();
    let mut answered = 0;
    while answered < entries.len() && Instant::now() < deadline {
        match tokio::time::timeout_at(deadline.min(Instant::now() + LOOK), answers.recv()).await {
            Ok(Some(answer)) => {
                answered += 1;
                match answer {
                    WarmAnswer::Ready => warmed.warm += 1,
                    WarmAnswer::Pinned => warmed.pinned += 1,
                    WarmAnswer::Failed(why) => {
                        warmed.failed += 1;
                        warmed.failed_reason = why;
                    }
                }
            }
            Ok(None) => break,
            Err(_) => {
                let now = shared.registry.now();
                let long = |entry: &&Arc<Entry>| {
                    entry.inside_for(now).is_some_and(|us| Duration::from_micros(us) > LONG)
                };
                if answered + entries.iter().filter(long).count() >= entries.len() {
                    break;
                }
            }
        }
    }
    warmed
}
