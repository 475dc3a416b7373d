//! Builds what is left of the schema once the rows are there: indexes and constraints in parallel, larger tables first,
//! then foreign keys, triggers and the rest.

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use super::carry_schema::{has_reached, teller};
use crate::carry::CarryError;
use crate::carry::indexes::{self, Site, Stage};
use crate::deployment::Stream;
use crate::failure;
use crate::steps::stream;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct BuildIndexes;

#[async_trait]
impl Step<World> for BuildIndexes {
    fn id(&self) -> &'static str {
        "build-indexes"
    }

    fn title(&self) -> &'static str {
        "build indexes and constraints"
    }

    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let done = stream::under_fuse(world, Stream::Forward, has_reached(world, Stage::All)).await?;
        Ok(if done { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let (author, green, jobs) = (world.author(cx), &world.green.server, world.settings.index_jobs);
        let work = async {
            for database in &world.databases {
                let site = Site { dump: &world.dump, green, database: &database.name, author: &author, jobs };
                indexes::carry_rest(&site, &teller(cx, "building")).await?;
            }
            Ok(())
        };
        let work = async { work.await.map_err(|error: CarryError| failure::carry(&error)) };
        stream::under_fuse(world, Stream::Forward, work).await
    }
}
