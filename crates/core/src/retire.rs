//! The runbook of `finish` on one screen: nothing of ours stays on either side, and the side that clients left stays
//! read-only. A side that is lost for good can be given up; then it is left as it is. Owns the order of the steps. Refuses
//! to know how a step is done.

use std::sync::Arc;

use pgteal_saga::plan::PlanError;
use pgteal_saga::registry::RegistryError;
use pgteal_saga::{Plan, Registry, Step};
use serde_json::{Value, json};

use crate::deployment::{DatabaseKey, DeploymentId, Side};
use crate::steps::retire as steps;
use crate::world::World;

/// The steps of `finish` when `active` is the side that serves.
///
/// # Errors
/// Only if two steps were given one name, which a test rules out.
pub fn runbook(active: Side) -> Result<Registry<World>, RegistryError> {
    let steps: Vec<Arc<dyn Step<World>>> = vec![
        Arc::new(steps::check_active::CheckActive(active)),
        // Without the streams there is no lossless way back: the point of no return.
        Arc::new(steps::remove_streams::RemoveStreams),
        Arc::new(steps::restore_tables::RestoreTables),
        Arc::new(steps::clear_active::ClearActive(active)),
        Arc::new(steps::clear_retired::ClearRetired(active.other())),
    ];
    Registry::new("finish", steps)
}

/// Freezes the plan of `finish`.
///
/// # Errors
/// [`PlanError`] if the runbook breaks a rule of the engine.
pub fn plan(
    runbook: &Registry<World>,
    deployment: &DeploymentId,
    databases: &[DatabaseKey],
    active: Side,
) -> Result<Plan, PlanError> {
    let first = runbook.steps().first().map(|step| step.id());
    let params = json!({ "databases": databases, "active": active });
    runbook
        .plan(deployment.clone(), |id| Some(if Some(id) == first { params.clone() } else { Value::Null }))
        .freeze()
}

/// The side that a plan of `finish` was frozen for.
#[must_use]
pub fn active_of(plan: &Plan) -> Option<Side> {
    let active = plan.steps().first()?.params.get("active")?;
    serde_json::from_value(active.clone()).ok()
}
