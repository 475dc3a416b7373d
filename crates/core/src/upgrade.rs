//! The runbook of `up` on one screen: from an untouched blue to a green that is in step and verified. Owns the order of
//! the steps. Refuses to know how a step is done. Every step can be undone: nothing here is a point of no return.

use std::sync::Arc;

use pgteal_saga::plan::PlanError;
use pgteal_saga::registry::RegistryError;
use pgteal_saga::{Plan, Registry, Step};
use serde_json::{Value, json};

use crate::deployment::{DatabaseKey, DeploymentId};
use crate::steps::upgrade as steps;
use crate::steps::upgrade::on_green::OnGreen;
use crate::world::World;

/// The steps of `up`.
///
/// # Errors
/// Only if two steps were given one name, which a test rules out.
pub fn runbook() -> Result<Registry<World>, RegistryError> {
    let steps: Vec<Arc<dyn Step<World>>> = vec![
        Arc::new(steps::preflight::Preflight),
        Arc::new(steps::provision_green::ProvisionGreen),
        Arc::new(OnGreen(steps::claim_green::ClaimGreen)),
        Arc::new(steps::arm_blue::ArmBlue),
        Arc::new(steps::set_identities::SetIdentities),
        Arc::new(OnGreen(steps::carry_roles::CarryRoles)),
        Arc::new(OnGreen(steps::carry_databases::CarryDatabases)),
        Arc::new(steps::carry_schema::CarrySchema),
        Arc::new(OnGreen(steps::fence_green::FenceGreen)),
        Arc::new(steps::publish::Publish),
        Arc::new(steps::subscribe::Subscribe),
        Arc::new(steps::initial_sync::InitialSync),
        Arc::new(steps::build_indexes::BuildIndexes),
        Arc::new(steps::analyze::Analyze),
        Arc::new(steps::catch_up::CatchUp),
        Arc::new(steps::verify::Verify),
    ];
    Registry::new("up", steps)
}

/// Freezes the plan of `up` for these databases.
///
/// # Errors
/// [`PlanError`] if the runbook breaks a rule of the engine.
pub fn plan(
    runbook: &Registry<World>,
    deployment: &DeploymentId,
    databases: &[DatabaseKey],
) -> Result<Plan, PlanError> {
    let first = runbook.steps().first().map(|step| step.id());
    runbook
        .plan(deployment.clone(), |id| {
            Some(if Some(id) == first { json!({ "databases": databases }) } else { Value::Null })
        })
        .freeze()
}

/// The databases that a plan was frozen for; the first step of every plan carries them.
#[must_use]
pub fn databases_of(plan: &Plan) -> Vec<DatabaseKey> {
    let listed = plan.steps().first().and_then(|step| step.params.get("databases")).cloned();
    listed.and_then(|list| serde_json::from_value(list).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_plan_carries_its_databases_and_can_be_undone() {
        let runbook = runbook().unwrap();
        let databases = vec![
            DatabaseKey { ordinal: 0, name: "app".into() },
            DatabaseKey { ordinal: 1, name: "billing".into() },
        ];
        let plan = plan(&runbook, &DeploymentId::generate(), &databases).unwrap();
        assert_eq!(databases_of(&plan), databases);
        assert!(plan.steps().iter().all(|step| !step.kind.is_forward()));
    }
}
