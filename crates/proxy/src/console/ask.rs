//! Owns `ASK`: whether clients' passwords could be looked up on a side. Opens one connection there, and changes nothing.

use std::time::Duration;

use super::answer::{Answer, Refusal};
use crate::route::Side;
use crate::shared::Shared;

pub(super) async fn ask(shared: &Shared, side: Side, limit: Duration) -> Result<Answer, Refusal> {
    if shared.server(side).is_none() {
        return Err(Refusal::not_now(format!("there is no {side} server in the configuration")));
    }
    shared.login.rehearse(side, limit).await.map_err(Refusal::not_now)?;
    Ok(Answer::one([("side", side.to_string())]))
}
