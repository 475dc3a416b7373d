//! Does the work of both fences' change ahead, in transactions that only wait for their commit: the DDL takes several
//! milliseconds, its commit one. In the pause the old side's is committed first, the new side's at the point of no return.

use async_trait::async_trait;
use pgteal_postgres::fence::lockers;
use pgteal_postgres::{Purpose, Session, marker, wal};
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use crate::carry::{CarryError, triggers};
use crate::deployment::{DatabaseKey, Direction, Side};
use crate::failure;
use crate::steps::switchover::hold_clients::MARGIN;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct StageFence(pub Direction);

impl StageFence {
    /// A session of its own, that a controller which froze keeps no longer than its clients are held.
    async fn session(world: &World, side: Side, database: &DatabaseKey) -> Result<Session, CarryError> {
        let purpose = Purpose::control("fence").idle_in_transaction(world.settings.deadline + MARGIN);
        Ok(world.cluster(side).server.connect(&database.name, purpose).await?)
    }

    async fn raise(&self, world: &World, database: &DatabaseKey, epoch: i64) -> Result<(), CarryError> {
        let (side, fence) = (self.0.from, world.fence(self.0.from));
        let session = Self::session(world, side, database).await?;
        // What is asked right after the commit is prepared before it, there or on the control session.
        lockers(&session).await?;
        wal::insert_lsn(&session).await?;
        marker::warm(&session).await?;
        fence.probe(&world.session(side, database).await?).await?;
        if let Some(carrier) = world.carrier(database) {
            carrier.warm_second(&session).await?;
        }
        world.stage(side, database, fence.stage_raise(session, epoch).await?);
        Ok(())
    }

    async fn lower(&self, world: &World, database: &DatabaseKey, epoch: i64) -> Result<(), CarryError> {
        let (side, fence) = (self.0.to, world.fence(self.0.to));
        // Waking triggers takes locks on tables, against the apply worker: that has to wait for the pause.
        if triggers::silenced(&world.session(side, database).await?).await? == 0 {
            let session = Self::session(world, side, database).await?;
            fence.is_lowered(&session).await?;
            world.stage(side, database, fence.stage_lower(session, epoch).await?);
        }
        Ok(())
    }
}

#[async_trait]
impl Step<World> for StageFence {
    fn id(&self) -> &'static str {
        "stage-fence"
    }

    fn title(&self) -> &'static str {
        "stage the fence"
    }

    // Nothing is left of it but transactions that end with their sessions.
    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let staged = world.databases.iter().all(|database| world.staged(self.0.from, database).is_some());
        Ok(if staged { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let epoch = cx.epoch().0.cast_signed();
        self.undo(world, cx).await?;
        // One after the other: clients are served meanwhile, and want the processor too.
        for database in &world.databases {
            let one = async {
                self.raise(world, database, epoch).await?;
                self.lower(world, database, epoch).await
            };
            one.await.map_err(|error| failure::carry(&error))?;
        }
        Ok(())
    }

    async fn undo(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        world.unstage(self.0.from).await;
        world.unstage(self.0.to).await;
        Ok(())
    }
}
