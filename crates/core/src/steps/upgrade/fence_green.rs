//! Fences green from the moment its tables exist: until the repoint nobody but the apply workers and we may write there.

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError};

use crate::deployment::Side;
use crate::steps::is_fenced;
use crate::steps::upgrade::{arm_blue, set_identities};
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct FenceGreen;

#[async_trait]
impl Step<World> for FenceGreen {
    fn id(&self) -> &'static str {
        "fence-green"
    }

    fn title(&self) -> &'static str {
        "fence green"
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        match arm_blue::observe(world, Side::Green).await? {
            Observation::Done if is_fenced(world, Side::Green).await? => Ok(Observation::Done),
            Observation::Done => Ok(Observation::NotDone),
            other => Ok(other),
        }
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        arm_blue::install(world, Side::Green, cx).await?;
        // There is a place on green to remember things now.
        set_identities::tell_green(world, cx).await?;
        let (fence, epoch) = (world.fence(Side::Green), cx.epoch().0.cast_signed());
        world
            .each(Side::Green, |session, _| {
                let fence = &fence;
                async move { fence.raise(&session, epoch).await }
            })
            .await
            .map(drop)
    }

    async fn undo(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        arm_blue::disarm(world, Side::Green, cx).await
    }
}
