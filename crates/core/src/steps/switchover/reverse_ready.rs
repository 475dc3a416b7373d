//! Moves the start of the way back past everything that was applied, before any client writes there (I4): what came
//! from the old side is not sent back to it, and what comes later is.
//!
//! What moves is the origin of the subscription, which asks for what comes after it; the slot stays a little behind. To
//! move a slot reads WAL, may wait for transactions (our own staged fence among them), and is on the disk with the next
//! checkpoint only (PostgreSQL docs, pg_replication_slot_advance); the origin is durable at once.

use async_trait::async_trait;
use pgteal_postgres::{replication_origin, slot};
use pgteal_saga::{Cx, Durability, Observation, Step, StepError, StepKind};

use crate::deployment::Direction;
use crate::failure::code;
use crate::steps::{still_fenced, still_held, way_back_stands};
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct ReverseReady(pub Direction);

#[async_trait]
impl Step<World> for ReverseReady {
    fn id(&self) -> &'static str {
        "reverse-ready"
    }

    fn title(&self) -> &'static str {
        "make the way back ready"
    }

    // The position is of no use to anybody but a later cutover, which moves it again.
    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    fn durability(&self) -> Durability {
        Durability::Deferred
    }

    async fn guard(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        futures::try_join!(still_held(world, self.0, cx), still_fenced(world, self.0.from)).map(drop)
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let stands = world.take_way_seen() || way_back_stands(world, self.0).await?;
        Ok(if stands { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let opposite = self.0.opposite();
        let ways = world
            .each(self.0.from, |subscriber, database| async move {
                let name = world.stream(opposite, database);
                let keeper = world.session(self.0.to, database).await?;
                // Without it the step is not seen to be done, and the run unwinds.
                let Some(flushed) = world.flushed(database) else { return Ok((name, true, false)) };
                // The position is asked behind the move, in the same breath.
                let (slot, (), origin) = futures::try_join!(
                    slot::confirmed(&keeper, &name),
                    replication_origin::advance(&subscriber, &name, flushed),
                    replication_origin::position(&subscriber, &name),
                )?;
                cx.note(&format!("reverse_lsn/{}", database.name), flushed.to_string());
                let stands =
                    origin.is_some_and(|lsn| lsn >= flushed) && slot.is_some_and(|lsn| lsn <= flushed);
                Ok((name, slot.is_some(), stands))
            })
            .await?;
        world.note_way_seen(ways.iter().all(|(.., stands)| *stands));
        match ways.into_iter().find(|(_, exists, _)| !exists) {
            None => Ok(()),
            // Made anew it would lack what clients write until then.
            Some((name, ..)) => Err(StepError::refused(format!("replication slot {name}"), "it is gone")
                .with_code(code::LOST_HOLD)),
        }
    }
}
