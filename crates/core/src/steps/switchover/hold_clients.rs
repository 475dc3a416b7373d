//! Closes the gate of every router at transaction boundaries. Clients stay connected; what they send waits.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_saga::{Cx, Durability, Observation, Step, StepError};

use crate::deployment::Direction;
use crate::failure::code;
use crate::steps::still_sealed;
use crate::steps::switchover::freshen::Freshen;
use crate::steps::switchover::guardrails;
use crate::world::World;

/// How much longer than the deadline the router's own limit is (I5): long enough that the controller's unwinding
/// comes first, short enough that clients of a dead controller go on soon.
pub(crate) const MARGIN: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub struct HoldClients(pub Direction);

#[async_trait]
impl Step<World> for HoldClients {
    fn id(&self) -> &'static str {
        "hold-clients"
    }

    fn title(&self) -> &'static str {
        "hold clients"
    }

    // The first of the two places in the cutover where the journal must be on the disk: from here on a crash
    // leaves something to put back.
    fn durability(&self) -> Durability {
        Durability::Sync
    }

    /// A run that was taken up again freshens and looks again: what was filled and seen then may be days old, and nothing
    /// has kept it.
    async fn guard(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        if !world.is_guarded() {
            if !world.is_fresh() {
                Freshen(self.0).apply(world, cx).await?;
            }
            guardrails::look(world, self.0, cx).await?;
        }
        still_sealed(world, self.0.from).await
    }

    async fn observe(&self, world: &World, cx: &Cx) -> Result<Observation, StepError> {
        let states = world.routers(|router| router.state()).await?;
        let held = states.iter().all(|state| state.held_by == Some(cx.epoch().0));
        cx.note("clients", states.iter().map(|state| state.clients).sum::<u64>());
        cx.note("busy", states.iter().map(|state| state.busy).sum::<u64>());
        Ok(if held { Observation::Done } else { Observation::NotDone })
    }

    /// Whoever takes up a hold that another process began has no seals: the run could only come as far as the guard of
    /// `repoint`, with clients held and the fence raised for nothing.
    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        if !world.is_guarded() {
            let what =
                "the controller that began it is gone, and nobody has kept the schemas as they were seen";
            return Err(StepError::refused("the hold", what).with_code(code::CONTROLLER_GONE));
        }
        let (epoch, limit) = (cx.epoch().0, world.settings.deadline + MARGIN);
        world.routers(|router| router.hold(epoch, limit)).await.map(drop)
    }

    async fn undo(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        world.routers(|router| router.release(cx.epoch().0)).await.map(drop)
    }
}
