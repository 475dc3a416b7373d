//! Makes green, or takes the empty server that was given, and waits until it accepts sessions.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError};

use crate::deployment::Side;
use crate::failure;
use crate::providers::{GreenState, Headroom};
use crate::world::World;

/// How long green may take to start or stop.
const BOUND: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct ProvisionGreen;

/// Whether green was given up and nothing of it can be removed: of a green that we made ourselves the files still can.
fn is_out_of_hand(world: &World) -> bool {
    world.is_lost(Side::Green) && !world.provider.is_ours()
}

#[async_trait]
impl Step<World> for ProvisionGreen {
    fn id(&self) -> &'static str {
        "provision-green"
    }

    fn title(&self) -> &'static str {
        "provision green"
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        if is_out_of_hand(world) {
            return Ok(Observation::NotDone);
        }
        match world.provider.observe().await.map_err(|error| failure::provider(&error))? {
            GreenState::Running => Ok(Observation::Done),
            GreenState::Foreign(what) => Ok(Observation::Foreign(what)),
            GreenState::Absent | GreenState::HalfMade | GreenState::Stopped => Ok(Observation::NotDone),
        }
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let databases = u32::try_from(world.databases.len()).unwrap_or(u32::MAX);
        let headroom = Headroom { databases, copy_workers: world.settings.copy_workers };
        let work = async {
            let prepared = world.provider.prepare(&world.blue.server, headroom).await?;
            world.provider.start(BOUND).await?;
            Ok(prepared)
        };
        let prepared = work.await.map_err(|error| failure::provider(&error))?;
        cx.note("settings_carried", prepared.carried.len());
        cx.note("settings_left_out", &prepared.left_out);
        Ok(())
    }

    async fn undo(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        if is_out_of_hand(world) {
            return Ok(());
        }
        world.green.server.cool().await;
        let work = async {
            world.provider.stop(BOUND).await?;
            world.provider.remove().await
        };
        work.await.map_err(|error| failure::provider(&error))
    }
}
