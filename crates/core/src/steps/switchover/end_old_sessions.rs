//! Ends the client sessions that were on the old side before the fence. Whoever came past the routers finds out now, not
//! at the next write.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::activity::{self, Whose};
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use crate::deployment::Direction;
use crate::failure;
use crate::world::World;

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

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let none = world
            .all(self.0.from, |session, _| async move {
                Ok(activity::clients_before_fence(&session, world.role(self.0.from)).await?.is_empty())
            })
            .await?;
        Ok(if none { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
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
