//! Removes the fence and our schema from the side that serves.

use async_trait::async_trait;
use pgteal_postgres::schema;
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use crate::deployment::Side;
use crate::steps::upgrade::arm_blue;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct ClearActive(pub Side);

/// Whether nothing of ours is left on a side.
pub(super) async fn is_clear(world: &World, side: Side) -> Result<Observation, StepError> {
    let clear =
        world.all(side, |session, _| async move { Ok(schema::owner(&session).await?.is_none()) }).await?;
    Ok(if clear { Observation::Done } else { Observation::NotDone })
}

#[async_trait]
impl Step<World> for ClearActive {
    fn id(&self) -> &'static str {
        "clear-active"
    }

    fn title(&self) -> &'static str {
        "clear the side that serves"
    }

    fn kind(&self) -> StepKind {
        StepKind::ForwardOnly
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        is_clear(world, self.0).await
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        arm_blue::disarm(world, self.0, cx).await?;
        arm_blue::drop_schema(world, self.0).await
    }
}
