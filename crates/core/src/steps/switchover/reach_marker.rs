//! Writes the marker on the fenced side, unless the fence has sent one right behind itself, and waits until the other side
//! has applied it: the proof that everything committed before the fence is there. Then makes what was applied durable.
//! Never "lag looks like 0".

use async_trait::async_trait;
use pgteal_postgres::{Session, marker};
use pgteal_saga::{Cx, Durability, Observation, Step, StepError, StepKind};

use crate::deployment::{DatabaseKey, Direction};
use crate::failure;
use crate::steps::{marker_has_arrived, still_fenced, still_held};
use crate::world::{World, begun};

/// See the module.
#[derive(Debug)]
pub struct ReachMarker(pub Direction);

/// Begins it right behind the fence: all that was ever committed comes before a marker that is written when nobody is left
/// to wait for, and not a moment sooner (I2). Waits for it on the other side too, which may not even answer: that is for
/// the step to tell.
pub(super) fn begin(
    world: &World,
    direction: Direction,
    database: &DatabaseKey,
    raised_on: &Session,
    cx: &Cx,
) {
    let (to, name) = (world.cluster(direction.to).server.clone(), database.name.clone());
    let (from, bound) = (raised_on.clone(), cx.within(world.settings.deadline));
    let marker = async move {
        let n = marker::write(&from).await?;
        let durable = async { marker::wait_durable(&to.warm(&name).await?, n, bound).await };
        Ok((n, durable.await))
    };
    world.note_marker(database, Some(begun::spawn(marker)));
}

#[async_trait]
impl Step<World> for ReachMarker {
    fn id(&self) -> &'static str {
        "reach-marker"
    }

    fn title(&self) -> &'static str {
        "reach the marker"
    }

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
        let durable = world.databases.iter().all(|database| world.flushed(database).is_some());
        let arrived = durable && marker_has_arrived(world, self.0).await?;
        Ok(if arrived { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let bound = cx.within(world.settings.deadline);
        let arrived = world
            .each(self.0.from, |session, database| async move {
                // The fence may have sent one right behind itself. It is good for one try.
                let (n, durable) =
                    match begun::outcome(world.take_marker(database), "the marker behind the fence").await {
                        Some(sent) => sent,
                        None => {
                            let n = marker::write(&session).await?;
                            let to = world.session(self.0.to, database).await?;
                            (n, marker::wait_durable(&to, n, bound).await)
                        }
                    };
                // Applied is visible, not yet durable; and the slot of the way back only goes to flushed WAL.
                world.note_flushed(database, durable?);
                Ok((database.name.clone(), n))
            })
            .await
            .map_err(failure::as_unknown)?;
        for (database, n) in arrived {
            cx.note(&format!("marker/{database}"), n);
        }
        Ok(())
    }
}
