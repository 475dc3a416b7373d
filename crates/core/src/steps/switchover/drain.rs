//! Waits for the client transactions that were open at the hold, then acts by policy on what is left.

use async_trait::async_trait;
use pgteal_saga::{Cx, Durability, Observation, Step, StepError, StepKind};

use crate::deployment::Direction;
use crate::failure::code;
use crate::steps::still_held;
use crate::world::{OnDrain, World};

/// See the module.
#[derive(Debug)]
pub struct Drain(pub Direction);

#[async_trait]
impl Step<World> for Drain {
    fn id(&self) -> &'static str {
        "drain"
    }

    fn title(&self) -> &'static str {
        "drain open transactions"
    }

    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    fn durability(&self) -> Durability {
        Durability::Deferred
    }

    async fn guard(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        still_held(world, self.0, cx).await
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let states = world.routers(|router| router.state()).await?;
        let empty = states.iter().all(|state| state.held_by.is_some() && state.busy == 0);
        Ok(if empty { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let settings = &world.settings;
        let budget = match settings.on_drain {
            OnDrain::Wait => cx.within(settings.deadline),
            OnDrain::Terminate | OnDrain::Abort => cx.within(settings.drain_budget),
        };
        let terminate = settings.on_drain == OnDrain::Terminate;
        let drained = world.routers(|router| router.drain(cx.epoch().0, budget, terminate)).await;
        if matches!(drained, Err(StepError::Refused(_))) {
            // A hold that was lost since the guard is what is to be told.
            still_held(world, self.0, cx).await?;
        }
        let drained = drained?;
        let terminated: u64 = drained.iter().map(|d| d.terminated).sum();
        let busy: u64 = drained.iter().map(|d| d.busy).sum();
        cx.note("terminated", terminated);
        if busy == 0 {
            return Ok(());
        }
        let what = format!("still open {} ms after the hold", budget.as_millis());
        Err(StepError::refused(format!("{busy} client transactions"), what).with_code(code::DRAIN))
    }
}
