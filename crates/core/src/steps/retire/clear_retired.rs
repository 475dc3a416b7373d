//! Removes the fence and our schema from the side that clients left. It stays read-only by default, so that a forgotten
//! client cannot write to it unnoticed: handing it back is one `ALTER DATABASE .. RESET default_transaction_read_only`.
//! What was given up is left as it is.

use async_trait::async_trait;
use pgteal_postgres::quote::ident;
use pgteal_postgres::{Error, Purpose, schema};
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use super::clear_active::{forget_all, is_clear};
use crate::deployment::Side;
use crate::failure;
use crate::steps::upgrade::arm_blue;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct ClearRetired(pub Side);

#[async_trait]
impl Step<World> for ClearRetired {
    fn id(&self) -> &'static str {
        "clear-retired"
    }

    fn title(&self) -> &'static str {
        "clear the side that was left"
    }

    fn kind(&self) -> StepKind {
        StepKind::ForwardOnly
    }

    async fn observe(&self, world: &World, cx: &Cx) -> Result<Observation, StepError> {
        if world.is_lost(self.0) {
            cx.note("given_up", self.0);
            return Ok(Observation::Done);
        }
        is_clear(world, self.0).await
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let (fence, epoch) = (world.fence(self.0), cx.epoch().0.cast_signed());
        for database in &world.databases {
            let work = async {
                let server = &world.cluster(self.0).server;
                let mut session = server.connect(&database.name, Purpose::control("retire")).await?;
                if schema::owner(&session).await?.is_none() || !fence.state(&session).await?.is_raised() {
                    return Ok(());
                }
                // In one transaction: at no instant does it take writes.
                let doing = "retiring a database";
                let tx = session.begin(doing).await?;
                fence.lower(&tx, epoch).await?;
                let set = format!(
                    "ALTER DATABASE {} SET default_transaction_read_only = on",
                    ident(&database.name)
                );
                tx.batch(doing, &set).await?;
                tx.commit(doing).await
            };
            work.await.map_err(|error: Error| failure::server(&error))?;
        }
        remove(world, self.0).await?;
        forget_all(world, self.0).await
    }
}

/// Takes the fence away although the read-only default stays.
async fn remove(world: &World, side: Side) -> Result<(), StepError> {
    let fence = world.fence(side);
    for database in &world.databases {
        let work = async {
            let purpose = Purpose::control("retire").within(arm_blue::ARM_BOUND);
            let mut session = world.cluster(side).server.connect(&database.name, purpose).await?;
            if schema::owner(&session).await?.is_none() {
                return Ok(());
            }
            fence.remove(&mut session, arm_blue::ARM_BOUND, &mut |_| {}).await
        };
        work.await.map_err(|error: Error| failure::server(&error))?;
    }
    Ok(())
}
