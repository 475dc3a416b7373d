//! Owns `DRAIN`: waits until no transaction is open, and with `TERMINATE` ends those that are when the budget is spent.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::answer::{Answer, Refusal};
use crate::registry::Command;
use crate::shared::Shared;

/// How long the terminated may take until their servers have let go.
const TERMINATION: Duration = Duration::from_secs(6);

pub(super) async fn drain(
    shared: &Shared,
    epoch: u64,
    budget: Duration,
    terminate: bool,
) -> Result<Answer, Refusal> {
    shared.gate.held_by(epoch)?;
    let began = Instant::now();
    let mut busy = shared.gate.drained(began + budget).await;
    let mut terminated = 0;
    if busy > 0 && terminate {
        // The hold may have reached its limit meanwhile: then nobody is terminated.
        shared.gate.held_by(epoch)?;
        terminated = end_the_rest(shared, budget).await;
        busy = shared.gate.drained(Instant::now() + TERMINATION).await;
    }
    Ok(Answer::one([
        ("busy", busy.to_string()),
        ("terminated", terminated.to_string()),
        ("us", began.elapsed().as_micros().to_string()),
    ]))
}

async fn end_the_rest(shared: &Shared, budget: Duration) -> usize {
    let inside: Vec<_> =
        shared.registry.all().into_iter().filter(|entry| entry.inside_since.load(Relaxed) != 0).collect();
    let (reply, mut gone) = mpsc::channel(inside.len().max(1));
    let why = format!(
        "terminating connection: the transaction was still open when the drain budget of {} ms was spent",
        budget.as_millis()
    );
    for entry in &inside {
        entry.tell(Command::End { why: why.clone(), reply: Some(reply.clone()) });
    }
    drop(reply);
    let deadline = Instant::now() + TERMINATION;
    let mut count = 0;
    while let Ok(Some(())) = tokio::time::timeout_at(deadline, gone.recv()).await {
        count += 1;
    }
    count
}
