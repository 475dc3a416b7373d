//! Looks whether the side that is to stay is the one that serves: not fenced, and every router points to it, while the
//! other side is fenced. One that was given up cannot be asked.

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use crate::deployment::Side;
use crate::failure::code;
use crate::steps::{is_fenced, is_lowered};
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct CheckActive(pub Side);

#[async_trait]
impl Step<World> for CheckActive {
    fn id(&self) -> &'static str {
        "check-active"
    }

    fn title(&self) -> &'static str {
        "check which side serves"
    }

    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    async fn observe(&self, world: &World, cx: &Cx) -> Result<Observation, StepError> {
        let (active, other) = (self.0, self.0.other());
        let refuse = |what: String| Err(StepError::refused(active.as_str(), what).with_code(code::GUARDRAIL));
        if let Some(state) = world.routers(|router| router.state()).await?.iter().find(|s| s.route != active)
        {
            return refuse(format!("a router points to {}", state.route));
        }
        if !is_lowered(world, active).await? {
            return refuse("it is fenced".to_owned());
        }
        if world.is_lost(other) {
            cx.note("given_up", other);
        } else if !is_fenced(world, other).await? {
            return refuse(format!("{other} is not fenced, so both sides take writes"));
        }
        Ok(Observation::Done)
    }

    async fn apply(&self, _world: &World, _cx: &Cx) -> Result<(), StepError> {
        Ok(())
    }
}
