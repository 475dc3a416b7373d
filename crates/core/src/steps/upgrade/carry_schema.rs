//! Carries types, functions, tables and views, and the keys that the apply workers need from the first row on.

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use super::carry_roles::own_home;
use crate::carry::indexes::{self, Site, Stage};
use crate::carry::{CarryError, databases, schema};
use crate::deployment::Side;
use crate::drift;
use crate::failure;
use crate::progress::Tick;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct CarrySchema;

/// Passes on what long work tells.
pub(super) fn teller<'a>(cx: &'a Cx, what: &'static str) -> impl Fn(Tick<'_>) + Send + Sync + 'a {
    move |tick| {
        let total = (tick.total > 0).then_some(tick.total);
        cx.report(Some(tick.name), what, Some(tick.done), total, "items");
    }
}

/// Whether every database has come so far with its indexes.
pub(super) async fn has_reached(world: &World, stage: Stage) -> Result<bool, StepError> {
    let look = async {
        for database in &world.databases {
            let green = world.session(Side::Green, database).await?;
            if !schema::is_carried(&green).await? || indexes::stage(&green).await? < Some(stage) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    look.await.map_err(|error: CarryError| failure::carry(&error))
}

#[async_trait]
impl Step<World> for CarrySchema {
    fn id(&self) -> &'static str {
        "carry-schema"
    }

    fn title(&self) -> &'static str {
        "carry the schema"
    }

    // What is in a database of ours goes with the database; `undo` only empties those that were there before us.
    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        Ok(if has_reached(world, Stage::Keys).await? { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let (author, green) = (world.author(cx), &world.green.server);
        let jobs = world.settings.index_jobs;
        // Before the dump: what is changed after that is seen to be changed.
        drift::remember(world, Side::Blue, &author).await?;
        let work = async {
            for database in &world.databases {
                let database = database.name.as_str();
                world.dump.take(&world.blue.server, database).await?;
                schema::carry(&world.dump, green, database, &author, &teller(cx, "making the schema"))
                    .await?;
                let site = Site { dump: &world.dump, green, database, author: &author, jobs };
                indexes::carry_keys(&site, &teller(cx, "making keys")).await?;
            }
            Ok(())
        };
        work.await.map_err(|error: CarryError| failure::carry(&error))
    }

    async fn undo(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        let work = async {
            // The dumps are here, whatever became of green.
            let there = !world.is_lost(Side::Green);
            let created = match there {
                true => databases::created(&own_home(world).await?).await?,
                false => Vec::new(),
            };
            for database in &world.databases {
                if there && !created.contains(&database.name) {
                    let purpose = pgteal_postgres::Purpose::long("carry");
                    schema::undo(&mut world.green.server.connect(&database.name, purpose).await?).await?;
                }
                world.dump.discard(&database.name)?;
            }
            Ok(())
        };
        work.await.map_err(|error: CarryError| failure::carry(&error))
    }
}
