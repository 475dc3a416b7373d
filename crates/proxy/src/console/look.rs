//! Owns `LOOK`: every session at rest is looked at unless nothing ran in it since the last look, a few at a time. Opens nothing
//! and keeps nobody; sessions inside a transaction are left alone, and so is everybody while clients are held.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::answer::{Answer, Refusal};
use crate::registry::{Command, Entry};
use crate::shared::Shared;

/// How many are looked at at once.
const AT_ONCE: usize = 4;
/// How long a few may take. Who does not answer has begun a transaction, most likely.
const TURN: Duration = Duration::from_millis(250);

pub(super) async fn look(shared: &Shared, limit: Duration) -> Result<Answer, Refusal> {
    let deadline = Instant::now() + limit;
    let entries = shared.registry.all();
    let mut looked = 0;
    for some in entries.chunks(AT_ONCE) {
        if shared.gate.is_closed() {
            return Err(Refusal::not_now("clients are held"));
        }
        if Instant::now() >= deadline {
            break;
        }
        looked += turn(some, deadline.min(Instant::now() + TURN)).await;
    }
    Ok(Answer::one([("sessions", entries.len().to_string()), ("looked", looked.to_string())]))
}

/// Answers how many are known as they are now.
async fn turn(entries: &[Arc<Entry>], until: Instant) -> usize {
    let (reply, mut answers) = mpsc::channel(AT_ONCE);
    for entry in entries.iter().filter(|entry| entry.inside_since.load(Relaxed) == 0) {
        entry.tell(Command::Look { reply: reply.clone() });
    }
    drop(reply);
    let mut looked = 0;
    while let Ok(Some(())) = tokio::time::timeout_at(until, answers.recv()).await {
        looked += 1;
    }
    looked
}
