//! Installs the open fence on blue, long before it is needed: schema `pgteal`, the trigger function, and a trigger on
//! every table, so that raising it later is one small transaction whatever the number of tables.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::{Error, Purpose, fence, schema};
use pgteal_saga::{Cx, Observation, Step, StepError};

use crate::deployment::Side;
use crate::failure;
use crate::world::World;

/// How long busy tables are tried again; each try waits 50 ms at most for a table's lock.
pub(crate) const ARM_BOUND: Duration = Duration::from_secs(120);

/// See the module.
#[derive(Debug)]
pub struct ArmBlue;

#[async_trait]
impl Step<World> for ArmBlue {
    fn id(&self) -> &'static str {
        "arm-blue"
    }

    fn title(&self) -> &'static str {
        "install the open fence on blue"
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        observe(world, Side::Blue).await
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        install(world, Side::Blue, cx).await
    }

    async fn undo(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        disarm(world, Side::Blue, cx).await?;
        drop_schema(world, Side::Blue).await
    }
}

/// Whether the fence is installed on every table of a side.
pub(crate) async fn observe(world: &World, side: Side) -> Result<Observation, StepError> {
    let its = world.fence(side);
    let installed = world
        .all(side, |session, _| {
            let its = &its;
            async move {
                // Looks at the owner first: what is in another deployment's schema is not ours to judge.
                match schema::owner(&session).await? {
                    Some(owner) if owner == its.deployment => {}
                    _ => return Ok(false),
                }
                Ok(its.state(&session).await?.installed && fence::unarmed(&session).await?.is_empty())
            }
        })
        .await?;
    Ok(if installed { Observation::Done } else { Observation::NotDone })
}

/// Installs the fence in every database of a side, one after the other: each takes locks.
pub(crate) async fn install(world: &World, side: Side, cx: &Cx) -> Result<(), StepError> {
    let its = world.fence(side);
    for database in &world.databases {
        let work = async {
            let purpose = Purpose::control("arm").within(ARM_BOUND);
            let mut session = world.cluster(side).server.connect(&database.name, purpose).await?;
            let mut progress = |p: fence::ArmProgress| {
                let (done, total) = (p.done as u64, p.total as u64);
                cx.report(Some(&database.name), "tables armed", Some(done), Some(total), "tables");
            };
            its.install(&mut session, ARM_BOUND, &mut progress).await
        };
        work.await.map_err(|error: Error| failure::server(&error))?;
    }
    Ok(())
}

/// Lowers the fence and takes it away again. The schema stays: it holds what other steps remember.
pub(crate) async fn disarm(world: &World, side: Side, cx: &Cx) -> Result<(), StepError> {
    let its = world.fence(side);
    for database in &world.databases {
        let work = async {
            let purpose = Purpose::control("disarm").within(ARM_BOUND);
            let mut session = world.cluster(side).server.connect(&database.name, purpose).await?;
            if schema::owner(&session).await?.is_none_or(|owner| owner != its.deployment) {
                return Ok(());
            }
            let state = its.state(&session).await?;
            if state.installed && !state.is_lowered() {
                its.lower(&session, cx.epoch().0.cast_signed()).await?;
            }
            its.remove(&mut session, ARM_BOUND, &mut |_| {}).await
        };
        work.await.map_err(|error: Error| failure::server(&error))?;
    }
    Ok(())
}

/// Drops our schema in every database of a side.
pub(crate) async fn drop_schema(world: &World, side: Side) -> Result<(), StepError> {
    let deployment = world.deployment.as_str();
    world.each(side, |session, _| async move { schema::remove(&session, deployment).await }).await.map(drop)
}
