//! A step whose whole effect is on green, for the time when green is lost for good: then there is nothing to look at and
//! nothing that could be taken back. Refuses to say what is left there.

use async_trait::async_trait;
use pgteal_saga::{Cx, Durability, Observation, Step, StepError, StepKind};

use crate::deployment::Side;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct OnGreen<S>(pub S);

#[async_trait]
impl<S: Step<World>> Step<World> for OnGreen<S> {
    fn id(&self) -> &'static str {
        self.0.id()
    }

    fn title(&self) -> &'static str {
        self.0.title()
    }

    fn kind(&self) -> StepKind {
        self.0.kind()
    }

    fn durability(&self) -> Durability {
        self.0.durability()
    }

    async fn guard(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        self.0.guard(world, cx).await
    }

    async fn observe(&self, world: &World, cx: &Cx) -> Result<Observation, StepError> {
        if world.is_lost(Side::Green) {
            return Ok(Observation::NotDone);
        }
        self.0.observe(world, cx).await
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        if world.is_lost(Side::Green) {
            return Err(StepError::refused(Side::Green.as_str(), "it was given up for good"));
        }
        self.0.apply(world, cx).await
    }

    async fn undo(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        if world.is_lost(Side::Green) {
            return Ok(());
        }
        self.0.undo(world, cx).await
    }
}
