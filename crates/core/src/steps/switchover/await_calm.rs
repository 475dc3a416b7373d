//! Waits for a calm moment: no client transaction older than the drain budget. A transaction of three seconds must
//! stall nobody, so the hold does not begin while one is open; when the wait is over, the drain policy decides.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};
use tokio::time::{Instant, sleep};

use crate::deployment::Direction;
use crate::failure::code;
use crate::world::{OnDrain, World};

/// How often the routers are asked. Short against any drain budget, long against the cost of asking.
const POLL: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug)]
pub struct AwaitCalm(pub Direction);

impl AwaitCalm {
    /// The age of the oldest open transaction that began on a route through us.
    async fn oldest(world: &World) -> Result<Duration, StepError> {
        let states = world.routers(|router| router.state()).await?;
        Ok(states.iter().map(|state| state.longest_transaction).max().unwrap_or_default())
    }

    /// A transaction just under the budget when looked at would use it up: half of it is calm.
    fn calm_below(world: &World) -> Duration {
        world.settings.drain_budget / 2
    }
}

#[async_trait]
impl Step<World> for AwaitCalm {
    fn id(&self) -> &'static str {
        "await-calm"
    }

    fn title(&self) -> &'static str {
        "wait for a calm moment"
    }

    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let calm = Self::oldest(world).await? <= Self::calm_below(world);
        Ok(if calm || world.waited_for_calm() { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let (bound, until) = (world.settings.calm_wait, Instant::now() + world.settings.calm_wait);
        loop {
            let oldest = Self::oldest(world).await?;
            if oldest <= Self::calm_below(world) {
                return Ok(());
            }
            if cx.stop().is_requested() {
                return Err(StepError::Stopped);
            }
            if Instant::now() >= until && world.settings.on_drain != OnDrain::Abort {
                world.note_waited_for_calm();
                return Ok(());
            }
            if Instant::now() >= until {
                let what = format!(
                    "no moment within {} ms without a client transaction older than {} ms",
                    bound.as_millis(),
                    Self::calm_below(world).as_millis()
                );
                return Err(StepError::refused("client transactions", what)
                    .with_status(format!("the oldest is open for {} ms", oldest.as_millis()))
                    .with_code(code::DRAIN));
            }
            cx.say(format!("the oldest client transaction is open for {} ms", oldest.as_millis()));
            sleep(POLL).await;
        }
    }
}
