//! Gives green's planner its statistics and fills materialized views: without them the first queries after the switch
//! are slow.

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use super::carry_schema::teller;
use crate::carry::{CarryError, matviews, statistics};
use crate::deployment::{Side, Stream};
use crate::failure;
use crate::steps::stream;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct Analyze;

#[async_trait]
impl Step<World> for Analyze {
    fn id(&self) -> &'static str {
        "analyze"
    }

    fn title(&self) -> &'static str {
        "analyze, fill materialized views"
    }

    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let look = async {
            for database in &world.databases {
                let blue = world.session(Side::Blue, database).await?;
                let green = world.session(Side::Green, database).await?;
                if !matviews::unpopulated(&blue, &green).await?.is_empty()
                    || !statistics::unanalyzed(&green).await?.is_empty()
                {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let look = async { look.await.map_err(|error: CarryError| failure::carry(&error)) };
        let done = stream::under_fuse(world, Stream::Forward, look).await?;
        Ok(if done { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let work = async {
            for database in &world.databases {
                let blue = world.session(Side::Blue, database).await?;
                let purpose = pgteal_postgres::Purpose::long("matviews");
                let green = world.green.server.connect(&database.name, purpose).await?;
                matviews::refresh(&blue, &green, &teller(cx, "filling")).await?;
                let jobs = world.settings.index_jobs;
                statistics::analyze(&world.green.server, &database.name, jobs, &teller(cx, "analyzing"))
                    .await?;
            }
            Ok(())
        };
        let work = async { work.await.map_err(|error: CarryError| failure::carry(&error)) };
        stream::under_fuse(world, Stream::Forward, work).await
    }
}
