//! Brings up to date, on the side that clients go to, what replication does not: the contents of materialized views, and
//! statistics of tables that have none. Ahead of the guardrails, since it may take long and stands in nobody's way.

use async_trait::async_trait;
use pgteal_postgres::Purpose;
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use crate::carry::{CarryError, matviews, statistics};
use crate::deployment::Direction;
use crate::failure;
use crate::progress::Tick;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct Freshen(pub Direction);

#[async_trait]
impl Step<World> for Freshen {
    fn id(&self) -> &'static str {
        "freshen"
    }

    fn title(&self) -> &'static str {
        "freshen views and statistics"
    }

    // A view that is newer than it was is nothing to put back.
    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        Ok(if world.is_fresh() { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let tell = |tick: Tick<'_>| {
            cx.report(Some(tick.name), "freshening", Some(tick.done), Some(tick.total), "items");
        };
        let (mut views, mut tables) = (0, 0);
        for database in &world.databases {
            let work = async {
                let server = &world.cluster(self.0.to).server;
                let from = world.session(self.0.from, database).await?;
                let to = server.connect(&database.name, Purpose::long("freshen")).await?;
                let views = matviews::refresh_again(&from, &to, &tell).await?;
                let jobs = world.settings.index_jobs;
                Ok((views, statistics::analyze(server, &database.name, jobs, &tell).await?))
            };
            let (filled, analyzed) = work.await.map_err(|error: CarryError| failure::carry(&error))?;
            (views, tables) = (views + filled, tables + analyzed);
        }
        cx.note("views", views);
        cx.note("analyzed", tables);
        world.note_fresh();
        Ok(())
    }
}
