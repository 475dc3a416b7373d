//! Publishes every table of blue and makes the slots, in this order: a slot cannot decode by a publication made after it.

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError};

use crate::deployment::Stream;
use crate::steps::stream;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct Publish;

#[async_trait]
impl Step<World> for Publish {
    fn id(&self) -> &'static str {
        "publish"
    }

    fn title(&self) -> &'static str {
        "publish blue's tables"
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let published = stream::is_published(world, Stream::Forward).await?;
        Ok(if published { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        stream::publish(world, Stream::Forward).await?;
        stream::make_slots(world, Stream::Forward).await
    }

    async fn undo(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        stream::unpublish(world, Stream::Forward).await
    }
}
