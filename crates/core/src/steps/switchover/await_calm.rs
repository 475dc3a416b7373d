//! Waits for a calm moment: no transaction that is older than half of the drain budget, be it a client's of the routers or
//! one that has written and came past them; and, where the policy says so, no session that cannot be moved. A transaction
//! of three seconds must stall nobody, so the hold does not begin while one is open; when the wait is over, the drain
//! policy decides.

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

/// What there is to wait for.
enum Seen {
    /// So many sessions would have to be ended that are to be waited for.
    Pinned(u64),
    /// The oldest open transaction.
    Oldest { age: Duration, what: String, again: Duration },
}

impl Seen {
    fn is_calm(&self, world: &World) -> bool {
        matches!(self, Seen::Oldest { age, .. } if *age <= world.settings.calm_below())
    }

    fn told(&self) -> String {
        match self {
            Seen::Pinned(pinned) => format!("{pinned} client sessions hold what cannot be carried"),
            Seen::Oldest { age, what, .. } => format!("{what} is open for {} ms", age.as_millis()),
        }
    }

    /// When it is worth another look.
    fn again(&self) -> Duration {
        match self {
            Seen::Pinned(_) => SERVER_POLL,
            Seen::Oldest { again, .. } => *again,
        }
    }
}

impl AwaitCalm {
    /// Asks the routers, and the servers only if those are calm.
    async fn look(&self, world: &World) -> Result<Seen, StepError> {
        let states = world.routers(|router| router.state()).await?;
        let pinned = states.iter().map(|state| state.pinned).sum();
        if pinned > 0 && world.settings.on_pinned == OnPinned::Wait {
            return Ok(Seen::Pinned(pinned));
        }
        let age = states.iter().map(|state| state.longest_transaction).max().unwrap_or_default();
        let oldest = Seen::Oldest { age, what: "the oldest client transaction".into(), again: POLL };
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
            Seen::Oldest { age, what, again: SERVER_POLL }
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
        let seen = self.look(world).await?;
        let waited = world.waited_for_calm() && matches!(seen, Seen::Oldest { .. });
        Ok(if seen.is_calm(world) || waited { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let (bound, until) = (world.settings.calm_wait, Instant::now() + world.settings.calm_wait);
        loop {
            let seen = self.look(world).await?;
            if seen.is_calm(world) {
                return Ok(());
            }
            if cx.stop().is_requested() {
                return Err(StepError::Stopped);
            }
            if Instant::now() >= until {
                return match seen {
                    Seen::Pinned(pinned) => Err(pinned_sessions(pinned)),
                    Seen::Oldest { .. } if world.settings.on_drain != OnDrain::Abort => {
                        world.note_waited_for_calm();
                        Ok(())
                    }
                    Seen::Oldest { .. } => {
                        let what = format!(
                            "no moment within {} ms without one older than {} ms",
                            bound.as_millis(),
                            world.settings.calm_below().as_millis()
                        );
                        let refused = StepError::refused("open transactions", what);
                        Err(refused.with_status(seen.told()).with_code(code::DRAIN))
                    }
                };
            }
            cx.say(seen.told());
            sleep(seen.again()).await;
        }
    }
}
