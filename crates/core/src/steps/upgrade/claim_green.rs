//! Puts our schema into green's first database, where everything is remembered that must be put back in a green that is
//! not ours to remove.

use async_trait::async_trait;
use pgteal_postgres::{Error, Session, database, schema};
use pgteal_saga::{Cx, Observation, Step, StepError};

use crate::failure;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct ClaimGreen;

/// Every cluster has it from the beginning.
pub(crate) const HOME: &str = "postgres";

/// The warm session to the database of green that exists before any is carried.
pub(crate) async fn home(world: &World) -> Result<Session, Error> {
    let server = &world.green.server;
    server.warm(HOME).await
}

#[async_trait]
impl Step<World> for ClaimGreen {
    fn id(&self) -> &'static str {
        "claim-green"
    }

    fn title(&self) -> &'static str {
        "claim green"
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let look = async { schema::owner(&home(world).await?).await };
        match look.await.map_err(|error| failure::server(&error))? {
            None => Ok(Observation::NotDone),
            Some(owner) if owner == world.deployment.as_str() => Ok(Observation::Done),
            Some(owner) => Ok(Observation::Foreign(format!("schema pgteal of deployment {owner} on green"))),
        }
    }

    async fn apply(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        let work = async { schema::ensure(&home(world).await?, world.deployment.as_str()).await };
        work.await.map_err(|error| failure::server(&error))
    }

    /// In every database that is still there: those that were carried are gone by now.
    async fn undo(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        let work = async {
            for found in database::list(&home(world).await?).await? {
                let session = world.green.server.warm(&found.name).await?;
                schema::remove(&session, world.deployment.as_str()).await?;
            }
            Ok(())
        };
        work.await.map_err(|error: Error| failure::server(&error))
    }
}
