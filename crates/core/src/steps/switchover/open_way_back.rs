//! Enables the opposite stream: from here on every write on the new side reaches the old one, and going back loses
//! nothing. To a side that was given up there is no way back.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::{Purpose, subscription};
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use crate::carry::{CarryError, triggers};
use crate::deployment::Direction;
use crate::failure;
use crate::steps::stream;
use crate::world::World;

/// A worker starts within `wal_retrieve_retry_interval` of the subscriber, 5 s unless it was set.
const START_BOUND: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Debug)]
pub struct OpenWayBack(pub Direction);

#[async_trait]
impl Step<World> for OpenWayBack {
    fn id(&self) -> &'static str {
        "open-way-back"
    }

    fn title(&self) -> &'static str {
        "open the way back"
    }

    fn kind(&self) -> StepKind {
        StepKind::ForwardOnly
    }

    async fn observe(&self, world: &World, cx: &Cx) -> Result<Observation, StepError> {
        if world.is_lost(self.0.from) {
            cx.note("given_up", self.0.from);
            return Ok(Observation::Done);
        }
        let running = stream::is_running(world, self.0.opposite()).await?;
        Ok(if running { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let opposite = self.0.opposite();
        let (side, author) = (opposite.subscriber(), world.author(cx));
        for database in &world.databases {
            // Triggers that fire on replicated rows too would do their work a second time.
            let silence = async {
                let server = &world.cluster(side).server;
                let mut session = server.connect(&database.name, Purpose::control("triggers")).await?;
                triggers::silence(&mut session, &author).await
            };
            silence.await.map_err(|error: CarryError| failure::carry(&error))?;
        }
        world
            .each(opposite.subscriber(), |session, database| async move {
                let name = world.stream(opposite, database);
                subscription::enable(&session, &name).await?;
                subscription::wait_started(&session.within(START_BOUND), &name, START_BOUND).await.map(drop)
            })
            .await
            .map(drop)
    }
}
