//! Owns `ASK`: whether clients' passwords could be looked up on a side, and which server that side is. Opens connections there,
//! one after the other, and changes nothing.

use std::time::Duration;

use super::answer::{Answer, Refusal};
use crate::reads;
use crate::route::Side;
use crate::shared::Shared;

pub(super) async fn ask(shared: &Shared, side: Side, limit: Duration) -> Result<Answer, Refusal> {
    if shared.server(side).is_none() {
        return Err(Refusal::not_now(format!("there is no {side} server in the configuration")));
    }
    shared.login.rehearse(side, limit).await.map_err(Refusal::not_now)?;
    let Some(service) = shared.login.service(side) else {
        return Err(Refusal::not_now(format!("there is no service role for {side} in the configuration")));
    };
    let (system, is_standby) = reads::identify(service, limit).await.map_err(|error| {
        let (user, server) = (service.user(), service.server().shown());
        Refusal::not_now(format!(
            "its service role \"{user}\" cannot ask {server} which server it is: {error}"
        ))
    })?;
    Ok(Answer::one([
        ("side", side.to_string()),
        ("system_identifier", system.map(|system| system.to_string()).unwrap_or_default()),
        ("in_recovery", is_standby.to_string()),
    ]))
}
