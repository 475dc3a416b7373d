//! The runbook of a switchover on one screen: `switch` moves clients from blue to green, `back` from green to
//! blue. Owns the order of the steps and the section under the deadline. Refuses to know how a step is done.

use std::sync::Arc;

use pgteal_saga::plan::PlanError;
use pgteal_saga::registry::RegistryError;
use pgteal_saga::{Plan, Registry, Step};
use serde_json::{Value, json};

use crate::deployment::{DatabaseKey, DeploymentId, Direction, Side};
use crate::steps::switchover as steps;
use crate::world::{Settings, World};

/// The steps of a switchover in `direction`.
///
/// # Errors
/// Only if two steps were given one name, which a test rules out.
pub fn runbook(direction: Direction) -> Result<Registry<World>, RegistryError> {
    let d = direction;
    let steps: Vec<Arc<dyn Step<World>>> = vec![
        // Before the hold, without a deadline.
        Arc::new(steps::freshen::Freshen(d)),
        Arc::new(steps::guardrails::Guardrails(d)),
        Arc::new(steps::make_way_back::MakeWayBack(d)),
        Arc::new(steps::advance_sequences::AdvanceSequences(d)),
        Arc::new(steps::warm_sessions::WarmSessions(d)),
        Arc::new(steps::warm_servers::WarmServers(d)),
        Arc::new(steps::await_calm::AwaitCalm(d)),
        Arc::new(steps::stage_fence::StageFence(d)),
        // The cutover: under the deadline.
        Arc::new(steps::hold_clients::HoldClients(d)),
        Arc::new(steps::drain::Drain(d)),
        Arc::new(steps::fence::Fence(d)),
        // While the marker that the fence sent behind itself is on its way.
        Arc::new(steps::carry_last::CarryLast(d)),
        Arc::new(steps::reach_marker::ReachMarker(d)),
        Arc::new(steps::reverse_ready::ReverseReady(d)),
        Arc::new(steps::repoint::Repoint(d)),
        Arc::new(steps::release::Release(d)),
        // After it, with clients already at work.
        Arc::new(steps::probe_write::ProbeWrite(d)),
        Arc::new(steps::drop_stream::DropStream(d)),
        Arc::new(steps::open_way_back::OpenWayBack(d)),
        Arc::new(steps::end_old_sessions::EndOldSessions(d)),
    ];
    Registry::new(kind(direction), steps)
}

/// The name of the runs of a direction, as the command is called.
#[must_use]
pub fn kind(direction: Direction) -> &'static str {
    match direction.to {
        Side::Green => "switch",
        Side::Blue => "back",
    }
}

/// Freezes the plan of a switchover.
///
/// # Errors
/// [`PlanError`] if the settings make no plan, such as a deadline of 0.
pub fn plan(
    runbook: &Registry<World>,
    deployment: &DeploymentId,
    databases: &[DatabaseKey],
    settings: &Settings,
) -> Result<Plan, PlanError> {
    let first = runbook.steps().first().map(|step| step.id());
    let bound = u64::try_from(settings.deadline.as_millis()).unwrap_or(u64::MAX);
    runbook
        .plan(deployment.clone(), |id| {
            Some(if Some(id) == first { json!({ "databases": databases }) } else { Value::Null })
        })
        .section("hold-clients", "release", bound)
        .freeze()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_directions_make_a_plan_whose_point_of_no_return_is_the_repoint() {
        for direction in [Direction::SWITCH, Direction::BACK] {
            let runbook = runbook(direction).unwrap();
            let databases = vec![DatabaseKey { ordinal: 0, name: "app".into() }];
            let plan = plan(&runbook, &DeploymentId::generate(), &databases, &Settings::default()).unwrap();
            assert_eq!(plan.kind(), kind(direction));
            let point = plan.steps().iter().position(|step| step.kind.is_forward()).unwrap();
            assert_eq!(plan.steps()[point].id, "repoint");
            assert!(plan.is_in_section(point));
        }
    }
}
