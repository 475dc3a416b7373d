//! Removes the fence and our schema from the side that serves.

use async_trait::async_trait;
use pgteal_postgres::{Error, Purpose, Session, schema};
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use crate::carry::{CarryError, triggers};
use crate::deployment::Side;
use crate::failure;
use crate::steps::upgrade::{arm_blue, claim_green};
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct ClearActive(pub Side);

/// The database of green where it was claimed, when it is none of the deployment's.
async fn home(world: &World, side: Side) -> Result<Option<Session>, Error> {
    let is_ours = world.databases.iter().any(|database| database.name == claim_green::HOME);
    if side == Side::Blue || is_ours {
        return Ok(None);
    }
    claim_green::home(world).await.map(Some)
}

/// Whether nothing of ours is left on a side.
pub(super) async fn is_clear(world: &World, side: Side) -> Result<Observation, StepError> {
    let clear =
        world.all(side, |session, _| async move { Ok(schema::owner(&session).await?.is_none()) }).await?;
    let at_home = async {
        match home(world, side).await? {
            Some(home) => Ok(schema::owner(&home).await?.is_none()),
            None => Ok(true),
        }
    };
    let clear = clear && at_home.await.map_err(|error: Error| failure::server(&error))?;
    Ok(if clear { Observation::Done } else { Observation::NotDone })
}

/// Switches on again what was kept quiet for the streams and, with that, forgets all that was remembered on a side.
pub(super) async fn forget_all(world: &World, side: Side) -> Result<(), StepError> {
    for database in &world.databases {
        let wake = async {
            let server = &world.cluster(side).server;
            triggers::restore(&mut server.connect(&database.name, Purpose::control("triggers")).await?).await
        };
        wake.await.map_err(|error: CarryError| failure::carry(&error))?;
    }
    arm_blue::drop_schema(world, side).await?;
    let at_home = async {
        match home(world, side).await? {
            Some(home) => schema::remove(&home, world.deployment.as_str()).await,
            None => Ok(()),
        }
    };
    at_home.await.map_err(|error| failure::server(&error))
}

#[async_trait]
impl Step<World> for ClearActive {
    fn id(&self) -> &'static str {
        "clear-active"
    }

    fn title(&self) -> &'static str {
        "clear the side that serves"
    }

    fn kind(&self) -> StepKind {
        StepKind::ForwardOnly
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        is_clear(world, self.0).await
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        // Nothing more is put into green.
        for database in &world.databases {
            world.dump.discard(&database.name).map_err(|error| failure::carry(&error))?;
        }
        arm_blue::disarm(world, self.0, cx).await?;
        forget_all(world, self.0).await
    }
}
