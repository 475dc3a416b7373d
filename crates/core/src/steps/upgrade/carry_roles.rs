//! Carries roles with their password verifiers, memberships and settings.

use async_trait::async_trait;
use pgteal_postgres::Purpose;
use pgteal_saga::{Cx, Observation, Step, StepError};

use super::claim_green::{HOME, home};
use crate::carry::{CarryError, roles};
use crate::failure;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct CarryRoles;

/// A session of its own to green's first database: what is carried is remembered in the same transaction.
pub(super) async fn own_home(world: &World) -> Result<pgteal_postgres::Session, CarryError> {
    let server = &world.green.server;
    Ok(server.connect(HOME, Purpose::long("carry")).await?)
}

/// Any database of blue will do for what belongs to the whole cluster.
pub(super) async fn blue(world: &World) -> Result<pgteal_postgres::Session, CarryError> {
    let server = &world.blue.server;
    Ok(server.warm(server.conninfo().database()).await?)
}

#[async_trait]
impl Step<World> for CarryRoles {
    fn id(&self) -> &'static str {
        "carry-roles"
    }

    fn title(&self) -> &'static str {
        "carry roles"
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let look = async {
            let green = home(world).await?;
            if !roles::is_carried(&green).await? {
                return Ok(false);
            }
            Ok(roles::differences(&blue(world).await?, &green).await?.is_empty())
        };
        let carried = look.await.map_err(|error: CarryError| failure::carry(&error))?;
        Ok(if carried { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let work = async {
            let carried =
                roles::carry(&blue(world).await?, &mut own_home(world).await?, &world.author(cx)).await?;
            cx.note("created", carried.created.len());
            cx.note("altered", carried.altered.len());
            Ok(())
        };
        work.await.map_err(|error: CarryError| failure::carry(&error))
    }

    async fn undo(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        let work = async { roles::undo(&mut own_home(world).await?).await };
        work.await.map_err(|error: CarryError| failure::carry(&error))
    }
}
