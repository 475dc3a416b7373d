//! Makes the opposite stream before it is needed: publication and slot on the side that clients go to, and the
//! subscription, not yet enabled, on the side that they leave. Making the slot inside the cutover would wait for
//! every open transaction there.

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError};

use crate::deployment::Direction;
use crate::steps::stream;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct MakeWayBack(pub Direction);

#[async_trait]
impl Step<World> for MakeWayBack {
    fn id(&self) -> &'static str {
        "make-way-back"
    }

    fn title(&self) -> &'static str {
        "make the way back"
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        stream::observe(world, self.0.opposite()).await
    }

    async fn apply(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        let opposite = self.0.opposite();
        stream::publish(world, opposite).await?;
        stream::make_slots(world, opposite).await?;
        stream::subscribe(world, opposite, false).await
    }

    async fn undo(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        // This may take long where a side does not answer; the users' DDL need not wait for it.
        world.unseal().await;
        stream::remove(world, self.0.opposite()).await
    }
}
