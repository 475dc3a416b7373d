//! Runs every check before anything is changed, and stops at a blocker.

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use crate::failure::{self, code};
use crate::preflight;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct Preflight;

#[async_trait]
impl Step<World> for Preflight {
    fn id(&self) -> &'static str {
        "preflight"
    }

    fn title(&self) -> &'static str {
        "preflight checks"
    }

    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    async fn observe(&self, world: &World, cx: &Cx) -> Result<Observation, StepError> {
        let names: Vec<String> = world.databases.iter().map(|database| database.name.clone()).collect();
        let report = preflight::run(
            &world.blue.server,
            &*world.provider,
            &world.green.server,
            Some(&world.deployment),
            &names,
            world.settings.copy_workers,
            &world.settings.waivers,
        )
        .await
        .map_err(|error| failure::provider(&error))?;
        cx.note("checks", report.checks.len());
        cx.note("findings", report.findings.len());
        let blockers: Vec<String> =
            report.blockers().map(|f| format!("{} ({}): {}", f.object, f.check, f.what)).collect();
        if report.passes() {
            return Ok(Observation::Done);
        }
        let shown = blockers.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        let word = if blockers.len() == 1 { "blocker" } else { "blockers" };
        let what = format!("{} {word}: {shown}", blockers.len());
        Err(StepError::refused("the preflight checks", what).with_code(code::BLOCKED))
    }

    async fn apply(&self, _world: &World, _cx: &Cx) -> Result<(), StepError> {
        Ok(())
    }
}
