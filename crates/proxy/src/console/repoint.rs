//! Owns `REPOINT`: the route changes, and every session goes to the other side. Refused unless held by that epoch and
//! drained; repeated, it only makes sure that everybody went.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::answer::{Answer, Refusal};
use crate::gate::{Effect, Event};
use crate::registry::{Command, TurnAnswer};
use crate::route::Side;
use crate::shared::Shared;

/// How long sessions may take to answer. Those that do not are turned at their next message: none can begin a
/// transaction on the wrong side.
const ANSWERS: Duration = Duration::from_millis(700);

pub(super) async fn repoint(shared: &Arc<Shared>, side: Side, epoch: u64) -> Result<Answer, Refusal> {
    if shared.server(side).is_none() {
        return Err(Refusal::not_now(format!("there is no {side} server in the configuration")));
    }
    let began = Instant::now();
    let recorder = Arc::clone(&shared.recorder);
    let record = |side, epoch| recorder.write(side, epoch).map_err(|error| error.to_string());
    let effect = shared.gate.drive(&Event::Repoint { epoch, side }, began, record)?;
    if effect == Effect::Repointed {
        shared.login.turn(side);
        let farewell = Arc::clone(&shared.farewell);
        if farewell.len() > 0 {
            // Turned round within one hold, say, without a WARM before.
            tokio::spawn(async move { farewell.make_room(side).await });
        }
        shared.warm_side.set(None);
        shared.pool.hold().into_iter().for_each(|upstream| shared.farewell.leave(upstream));
    }
    let (moved, ended, cold) = turn_all(shared).await;
    let us = began.elapsed().as_micros();
    if effect == Effect::Repointed {
        tokio::task::spawn_blocking(move || {
            if let Err(error) = recorder.sync() {
                tracing::warn!(%error, "the new route is written, and not synced");
            }
        });
    }
    Ok(Answer::one([
        ("moved", moved.to_string()),
        ("ended", ended.to_string()),
        ("cold", cold.to_string()),
        ("us", us.to_string()),
    ]))
}

async fn turn_all(shared: &Shared) -> (usize, usize, usize) {
    let entries = shared.registry.all();
    let (reply, mut answers) = mpsc::channel(entries.len().max(1));
    let (mut moved, mut ended, mut cold) = (0, 0, 0);
    for entry in &entries {
        if !entry.tell(Command::Turn { reply: reply.clone() }) {
            cold += 1;
        }
    }
    drop(reply);
    let deadline = Instant::now() + ANSWERS;
    while let Ok(Some(answer)) = tokio::time::timeout_at(deadline, answers.recv()).await {
        match answer {
            TurnAnswer::Moved => moved += 1,
            TurnAnswer::Cold => cold += 1,
            TurnAnswer::Ended => ended += 1,
        }
    }
    (moved, ended, cold)
}
