//! Carries what logical replication leaves behind and only the last moment knows: sequences that ran past the value they
//! were given ahead, and those that take no gap. The fence has begun it right behind itself where nobody was left to wait
//! for.

use async_trait::async_trait;
use pgteal_postgres::Session;
use pgteal_saga::{Cx, Durability, Observation, Step, StepError, StepKind};

use crate::carry::CarryError;
use crate::carry::sequences::{self, Settled};
use crate::deployment::{DatabaseKey, Direction};
use crate::failure;
use crate::steps::{still_fenced, still_held};
use crate::world::{World, begun};

/// See the module.
#[derive(Debug)]
pub struct CarryLast(pub Direction);

/// Begins it right behind the fence, when nobody is left to wait for, on the sessions of the raise. Without anything known
/// from before the pause it is left to its step.
pub(super) fn begin(
    world: &World,
    direction: Direction,
    database: &DatabaseKey,
    (control, raised_on): (&Session, &Session),
) {
    let Some(carrier) = world.carrier(database) else { return };
    let (from, second) = (control.clone(), raised_on.clone());
    let (to, name) = (world.cluster(direction.to).server.clone(), database.name.clone());
    let carry = async move { carrier.settle(&from, Some(&second), &to.warm(&name).await?).await };
    world.note_settling(database, Some(begun::spawn(carry)));
}

impl CarryLast {
    async fn carry(&self, world: &World, database: &DatabaseKey) -> Result<Settled, CarryError> {
        let from = world.session(self.0.from, database).await?;
        let to = world.session(self.0.to, database).await?;
        match world.carrier(database) {
            Some(carrier) => {
                let second = world.raised_on(self.0.from, database);
                carrier.settle(&from, second.as_ref(), &to).await
            }
            // Nothing is known from before the pause: slower, and as right.
            None => {
                let exact = sequences::carry_exactly(&from, &to).await?;
                Ok(Settled { exact, ..Settled::default() })
            }
        }
    }
}

#[async_trait]
impl Step<World> for CarryLast {
    fn id(&self) -> &'static str {
        "carry-last"
    }

    fn title(&self) -> &'static str {
        "carry the last sequence values"
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
        let settled = world.databases.iter().all(|database| world.is_settled(database));
        Ok(if settled { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let one = |database| async move {
            let settled =
                match begun::outcome(world.take_settling(database), "the last sequence values").await {
                    Some(settled) => settled,
                    None => self.carry(world, database).await?,
                };
            world.note_settled(database);
            Ok((settled.checked, settled.repaired + settled.exact))
        };
        let done = futures::future::try_join_all(world.databases.iter().map(one))
            .await
            .map_err(|error: CarryError| failure::carry(&error))?;
        cx.note("checked", done.iter().map(|(checked, _)| checked).sum::<usize>());
        cx.note("set", done.iter().map(|(_, set)| set).sum::<usize>());
        Ok(())
    }
}
