//! Ends the client sessions that were on the old side before the fence. Whoever came past the routers finds out now, not
//! at the next write.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::activity::{self, Whose};
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};
use tokio::time::{Instant, sleep};

use crate::deployment::Direction;
use crate::failure;
use crate::world::World;

/// How long the routers may take to close what they left on the old side. They do it little by little: many server
/// processes that exit at once take the processor from clients.
const LEFT_BOUND: Duration = Duration::from_secs(5);

/// How often the routers are asked for it.
const LEFT_POLL: Duration = Duration::from_millis(50);

/// How long ended sessions may take to go.
const GONE_BOUND: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct EndOldSessions(pub Direction);

#[async_trait]
impl Step<World> for EndOldSessions {
    fn id(&self) -> &'static str {
        "end-old-sessions"
    }

    fn title(&self) -> &'static str {
        "end old sessions"
    }

    fn kind(&self) -> StepKind {
        StepKind::ForwardOnly
    }

    async fn observe(&self, world: &World, cx: &Cx) -> Result<Observation, StepError> {
        if world.is_lost(self.0.from) {
            cx.note("given_up", self.0.from);
            return Ok(Observation::Done);
        }
        let none = world
            .all(self.0.from, |session, _| async move {
                Ok(activity::clients_before_fence(&session, world.role(self.0.from)).await?.is_empty())
            })
            .await?;
        Ok(if none { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let until = Instant::now() + LEFT_BOUND;
        while Instant::now() < until {
            let states = world.routers(|router| router.state()).await?;
            if states.iter().all(|state| state.left_behind == 0) {
                break;
            }
            sleep(LEFT_POLL).await;
        }
        // Whoever is left now came past the routers, or is kept by one that takes too long.
        let ended = world
            .each(self.0.from, |session, database| async move {
                let whose = Whose::Database(&database.name);
                let pids = activity::terminate_others(&session, world.role(self.0.from), whose).await?;
                activity::wait_gone(&session, &pids, GONE_BOUND).await?;
                Ok(pids.len())
            })
            .await
            .map_err(failure::as_unknown)?;
        cx.note("ended", ended.into_iter().sum::<usize>());
        Ok(())
    }
}
