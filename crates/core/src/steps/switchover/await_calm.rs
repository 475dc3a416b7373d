//! Waits for a calm moment: no transaction that is older than half of the drain budget, be it a client's of the routers or
//! one that has written and came past them; and, where the policy says so, no session that cannot be moved. A transaction of three seconds must stall nobody, so the hold does not begin
//! while one is open; when the wait is over, the drain policy decides.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::fence::oldest_locker;
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};
use tokio::time::{Instant, sleep};

use crate::deployment::{DatabaseKey, Direction};
use crate::failure::code;
use crate::steps::switchover::warm_sessions::pinned_sessions;
use crate::world::{OnDrain, OnPinned, World};

/// How often the routers are asked. Short against any drain budget, long against the cost of asking.
const POLL: Duration = Duration::from_millis(10);
/// How often the servers are asked, whose lists of locks cost more.
const SERVER_POLL: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct AwaitCalm(pub Direction);

/// The oldest open transaction.
struct Oldest {
    age: Duration,
    what: String,
    /// When it is worth another look.
    again: Duration,
}

impl AwaitCalm {
    /// How many sessions would have to be ended that are to be waited for.
    async fn pinned(world: &World) -> Result<u64, StepError> {
        if world.settings.on_pinned != OnPinned::Wait {
            return Ok(0);
        }
        Ok(world.routers(|router| router.state()).await?.iter().map(|state| state.pinned).sum())
    }

    /// The oldest open transaction that would have to be waited for. The servers are asked only if the routers are calm.
    async fn oldest(&self, world: &World) -> Result<Oldest, StepError> {
        let states = world.routers(|router| router.state()).await?;
        let age = states.iter().map(|state| state.longest_transaction).max().unwrap_or_default();
        let oldest = Oldest { age, what: "the oldest client transaction".into(), again: POLL };
        if age > world.settings.calm_below() {
            return Ok(oldest);
        }
        let look = |session, database: &DatabaseKey| {
            let name = database.name.clone();
            async move { Ok(oldest_locker(&session).await?.map(|(pid, age)| (age, pid, name))) }
        };
        let writers = world.each(self.0.from, look).await?.into_iter().flatten();
        Ok(writers.max().filter(|(direct, ..)| *direct > age).map_or(oldest, |(age, pid, name)| {
            let what = format!("a transaction that has written (process {pid}, database {name})");
            Oldest { age, what, again: SERVER_POLL }
        }))
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
        let calm = self.oldest(world).await?.age <= world.settings.calm_below();
        if Self::pinned(world).await? > 0 {
            return Ok(Observation::NotDone);
        }
        Ok(if calm || world.waited_for_calm() { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let (bound, until) = (world.settings.calm_wait, Instant::now() + world.settings.calm_wait);
        loop {
            let pinned = Self::pinned(world).await?;
            if pinned > 0 {
                if cx.stop().is_requested() {
                    return Err(StepError::Stopped);
                }
                if Instant::now() >= until {
                    return Err(pinned_sessions(pinned));
                }
                cx.say(format!("{pinned} client sessions hold what cannot be carried"));
                sleep(SERVER_POLL).await;
                continue;
            }
            let Oldest { age, what: which, again } = self.oldest(world).await?;
            if age <= world.settings.calm_below() {
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
                    "no moment within {} ms without one older than {} ms",
                    bound.as_millis(),
                    world.settings.calm_below().as_millis()
                );
                return Err(StepError::refused("open transactions", what)
                    .with_status(format!("{which} is open for {} ms", age.as_millis()))
                    .with_code(code::DRAIN));
            }
            cx.say(format!("{which} is open for {} ms", age.as_millis()));
            sleep(again).await;
        }
    }
}
