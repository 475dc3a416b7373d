//! Owns `RELEASE`: transactions begin again, on the side that the route says.

use tokio::time::Instant;

use super::answer::{Answer, Refusal};
use crate::gate::Event;
use crate::shared::Shared;

pub(super) fn release(shared: &Shared, epoch: u64) -> Result<Answer, Refusal> {
    let began = Instant::now();
    let waiting = shared.gate.view().waiting;
    shared.gate.drive(&Event::Release { epoch }, began, |_, _| Ok(()))?;
    Ok(Answer::one([("released", waiting.to_string()), ("us", began.elapsed().as_micros().to_string())]))
}
