//! Moves the slot of the way back past everything that was applied, before any client writes there (I4): what came
//! from the old side is not sent back to it, and what comes later is.
//!
//! A slot's new position is on the disk with the next checkpoint only (PostgreSQL docs, pg_replication_slot_advance): a
//! server that dies before it finds the slot where it was made. So the subscription's origin is moved as well, and its
//! worker asks for what comes after it.

use async_trait::async_trait;
use pgteal_postgres::{Error, replication_origin, slot};
use pgteal_saga::{Cx, Durability, Observation, Step, StepError, StepKind};

use crate::deployment::Direction;
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
        "ready the way back"
    }

    // The slot's position is of no use to anybody but a later cutover, which moves it again.
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
        let stands = way_back_stands(world, self.0).await?;
        Ok(if stands { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let opposite = self.0.opposite();
        let lsns = world
            .each(self.0.to, |session, database| async move {
                let name = world.stream(opposite, database);
                let origin = async {
                    // Without it the step is not seen to be done, and the run unwinds.
                    let Some(flushed) = world.flushed(database) else { return Ok::<_, Error>(()) };
                    let subscriber = world.session(self.0.from, database).await?;
                    replication_origin::advance(&subscriber, &name, flushed).await
                };
                let (lsn, ()) = futures::try_join!(slot::advance_to_now(&session, &name), origin)?;
                Ok((database.name.clone(), lsn))
            })
            .await?;
        for (database, lsn) in lsns {
            cx.note(&format!("reverse_lsn/{database}"), lsn.to_string());
        }
        Ok(())
    }
}
