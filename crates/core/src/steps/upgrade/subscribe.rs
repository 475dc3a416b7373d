//! Subscribes green to blue: from here on rows are copied and changes follow.

use async_trait::async_trait;
use pgteal_postgres::subscription;
use pgteal_saga::{Cx, Observation, Step, StepError};

use crate::deployment::{Side, Stream};
use crate::steps::stream;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct Subscribe;

#[async_trait]
impl Step<World> for Subscribe {
    fn id(&self) -> &'static str {
        "subscribe"
    }

    fn title(&self) -> &'static str {
        "subscribe green"
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        if world.is_lost(Side::Green) {
            return Ok(Observation::NotDone);
        }
        let enabled = world
            .all(Side::Green, |session, database| async move {
                let found = subscription::find(&session, &world.stream(Stream::Forward, database)).await?;
                Ok(found.is_some_and(|subscription| subscription.enabled))
            })
            .await?;
        Ok(if enabled { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        stream::remember_subscriber(world, Stream::Forward, cx).await?;
        stream::subscribe(world, Stream::Forward, true).await?;
        world
            .each(Side::Green, |session, database| async move {
                subscription::enable(&session, &world.stream(Stream::Forward, database)).await
            })
            .await
            .map(drop)
    }

    // Blue's slots go here already when green does not answer, not only with `publish`: until then they would fill blue's
    // disk, and nobody knows when green will be back.
    async fn undo(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        stream::unsubscribe(world, Stream::Forward).await
    }
}
