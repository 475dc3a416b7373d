//! Opens the gate: clients go on, on the new side.

use async_trait::async_trait;
use pgteal_saga::{Cx, Durability, Observation, Step, StepError, StepKind};

use crate::deployment::Direction;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct Release(pub Direction);

#[async_trait]
impl Step<World> for Release {
    fn id(&self) -> &'static str {
        "release"
    }

    fn title(&self) -> &'static str {
        "release clients"
    }

    fn kind(&self) -> StepKind {
        StepKind::ForwardOnly
    }

    fn durability(&self) -> Durability {
        Durability::Deferred
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let states = world.routers(|router| router.state()).await?;
        let open = states.iter().all(|state| state.held_by.is_none() && state.route == self.0.to);
        Ok(if open { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        world.routers(|router| router.release(cx.epoch().0)).await.map(drop)
    }
}
