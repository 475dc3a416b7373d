//! Removes both streams: subscriptions, slots, publications. The point of no return of `finish`: from here on there is no
//! lossless way back.

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use crate::deployment::Stream;
use crate::steps::stream;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct RemoveStreams;

#[async_trait]
impl Step<World> for RemoveStreams {
    fn id(&self) -> &'static str {
        "remove-streams"
    }

    fn title(&self) -> &'static str {
        "remove the streams"
    }

    fn kind(&self) -> StepKind {
        StepKind::PointOfNoReturn
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let (forward, reverse) = futures::try_join!(
            stream::is_gone(world, Stream::Forward),
            stream::is_gone(world, Stream::Reverse)
        )?;
        Ok(if forward && reverse { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        // The one of the two may be the one whose slots fill the disk of the side that serves: neither waits for the other.
        let forward = stream::remove(world, Stream::Forward).await;
        stream::remove(world, Stream::Reverse).await?;
        forward
    }
}
