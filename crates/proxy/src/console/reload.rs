//! Owns `RELOAD`: certificates and keys are read again. Refuses to read the configuration again.

use std::sync::Arc;

use super::answer::{Answer, Refusal};
use crate::shared::Shared;

pub(super) async fn reload(shared: &Arc<Shared>) -> Result<Answer, Refusal> {
    let refused = Shared::reload(shared).await;
    if refused.is_empty() {
        return Ok(Answer::one([("reload", "ok".into())]));
    }
    Err(Refusal::config_file(format!("what was read before stays: {}", refused.join("; "))))
}
