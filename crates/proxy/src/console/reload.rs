//! Owns `RELOAD`: certificates and keys are read again. Refuses to read the configuration again.

use super::answer::{Answer, Refusal};
use crate::shared::Shared;

pub(super) fn reload(shared: &Shared) -> Result<Answer, Refusal> {
    let refused = shared.reload();
    if refused.is_empty() {
        return Ok(Answer::one([("reload", "ok".into())]));
    }
    Err(Refusal::config_file(format!("what was read before stays: {}", refused.join("; "))))
}
