//! Goes once through everything that the cutover will ask of both servers, while nobody waits for it: the first time a
//! session does something it prepares the statement and loads catalogues, and a slot that stands far back has much to
//! read. What is done here is done again in the pause, and counts only there.

use async_trait::async_trait;
use pgteal_postgres::{Error, Session, marker, replication_origin, slot, wal};
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use crate::deployment::{DatabaseKey, Direction};
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct WarmServers(pub Direction);

impl WarmServers {
    /// What the side that clients leave will be asked.
    async fn leaving(&self, world: &World) -> Result<(), StepError> {
        let fence = world.fence(self.0.from);
        world
            .each(self.0.from, |session, _| {
                let fence = &fence;
                async move {
                    fence.is_raised(&session).await?;
                    marker::written_after_fence(&session).await.map(drop)
                }
            })
            .await
            .map(drop)
    }

    /// What the side that clients go to will be asked.
    async fn taking_over(&self, world: &World) -> Result<(), StepError> {
        let fence = world.fence(self.0.to);
        world
            .each(self.0.to, |session, database| {
                let fence = &fence;
                async move {
                    marker::warm(&session).await?;
                    fence.is_lowered(&session).await?;
                    self.bring_forward(world, &session, database).await
                }
            })
            .await
            .map(drop)
    }

    /// Everything before this moment came by the stream and is not sent back: the slot of the way back is moved past it,
    /// and so is its subscription's origin.
    async fn bring_forward(
        &self,
        world: &World,
        session: &Session,
        database: &DatabaseKey,
    ) -> Result<(), Error> {
        let name = world.stream(self.0.opposite(), database);
        wal::flush(session).await?;
        let lsn = slot::advance_to_now(session, &name).await?;
        let subscriber = world.session(self.0.from, database).await?;
        replication_origin::advance(&subscriber, &name, lsn).await?;
        slot::confirmed(session, &name).await?;
        replication_origin::position(&subscriber, &name).await.map(drop)
    }
}

#[async_trait]
impl Step<World> for WarmServers {
    fn id(&self) -> &'static str {
        "warm-servers"
    }

    fn title(&self) -> &'static str {
        "warm the servers"
    }

    // Nothing is left of it but what the servers remember of having been asked.
    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        Ok(if world.servers_are_warm() { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        futures::try_join!(self.leaving(world), self.taking_over(world))?;
        world.note_servers_warm();
        Ok(())
    }
}
