//! Owns `COOL`: the upstreams that were opened ahead are closed.

use super::answer::{Answer, Refusal};
use crate::registry::Command;
use crate::shared::Shared;

pub(super) fn cool(shared: &Shared, epoch: u64) -> Result<Answer, Refusal> {
    shared.gate.claim(epoch)?;
    shared.warm_side.set(None);
    let entries = shared.registry.all();
    for entry in &entries {
        entry.tell(Command::Cool);
    }
    Ok(Answer::one([("sessions", entries.len().to_string())]))
}
