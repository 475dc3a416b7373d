//! Makes on green every database that takes part, with encoding, locale, owner, privileges and settings.

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError};

use super::carry_roles::{blue, own_home};
use super::claim_green::home;
use crate::carry::{CarryError, databases};
use crate::failure;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct CarryDatabases;

fn names(world: &World) -> Vec<String> {
    world.databases.iter().map(|database| database.name.clone()).collect()
}

#[async_trait]
impl Step<World> for CarryDatabases {
    fn id(&self) -> &'static str {
        "carry-databases"
    }

    fn title(&self) -> &'static str {
        "carry databases"
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let look = async {
            let green = home(world).await?;
            if !databases::is_carried(&green).await? {
                return Ok(false);
            }
            Ok(databases::differences(&blue(world).await?, &green, &names(world)).await?.is_empty())
        };
        let carried = look.await.map_err(|error: CarryError| failure::carry(&error))?;
        Ok(if carried { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let work = async {
            let mut green = own_home(world).await?;
            databases::carry(&blue(world).await?, &mut green, &names(world), &world.author(cx)).await
        };
        work.await.map_err(|error: CarryError| failure::carry(&error))
    }

    async fn undo(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        // Warm sessions would keep the databases from being dropped.
        world.green.server.cool().await;
        let work = async { databases::undo(&mut own_home(world).await?).await };
        work.await.map_err(|error: CarryError| failure::carry(&error))
    }
}
