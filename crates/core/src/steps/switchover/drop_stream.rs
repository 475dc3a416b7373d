//! Removes the stream that clients came by: it has delivered everything, and a slot that nobody reads would fill the
//! disk. It must be gone before the way back is opened: never both directions.

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use crate::deployment::Direction;
use crate::steps::stream;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct DropStream(pub Direction);

#[async_trait]
impl Step<World> for DropStream {
    fn id(&self) -> &'static str {
        "drop-stream"
    }

    fn title(&self) -> &'static str {
        "drop the old stream"
    }

    fn kind(&self) -> StepKind {
        StepKind::ForwardOnly
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let gone = stream::is_gone(world, self.0.stream()).await?;
        Ok(if gone { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        stream::remove(world, self.0.stream()).await
    }
}
