//! Proves from the outside that clients are where they should be: a row written through each router, as a client would,
//! is read back from the new side itself.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::{Error, Purpose, Server, wal};
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use crate::deployment::Direction;
use crate::failure;
use crate::world::World;

/// A probe is a client that must not wait long.
const BOUND: Duration = Duration::from_secs(5);

/// The clients that were held have much to do at once, and they go first: what is left of the run can wait.
const CLIENTS_FIRST: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct ProbeWrite(pub Direction);

#[async_trait]
impl Step<World> for ProbeWrite {
    fn id(&self) -> &'static str {
        "probe-write"
    }

    fn title(&self) -> &'static str {
        "probe a write"
    }

    fn kind(&self) -> StepKind {
        StepKind::ForwardOnly
    }

    async fn observe(&self, world: &World, cx: &Cx) -> Result<Observation, StepError> {
        let Some(database) = world.databases.first() else { return Ok(Observation::Done) };
        tokio::time::sleep(CLIENTS_FIRST).await;
        for way in world.routers.iter().filter_map(|router| router.address()) {
            let probe = async {
                let direct = world.session(self.0.to, database).await?;
                // The router passes logins on to the new side, so it is that side's credentials that count.
                let login = world.cluster(self.0.to).server.conninfo();
                let server = Server::new("router", way.for_login(login, &database.name))?;
                let through = server.connect(&database.name, Purpose::probe("probe").within(BOUND)).await?;
                // The fence's own table: it refuses where a fence is raised, and is in no publication.
                through
                    .batch("writing a probe", "INSERT INTO pgteal.probe VALUES (2); DELETE FROM pgteal.probe")
                    .await?;
                let (reached, expected) =
                    (wal::system_identifier(&through).await?, wal::system_identifier(&direct).await?);
                Ok::<_, Error>(reached == expected)
            };
            if !probe.await.map_err(|error| failure::as_unknown(failure::server(&error)))? {
                let what = format!("a probe write landed on another server than {}", self.0.to);
                return Err(StepError::unknown("the routers", what));
            }
            cx.note("probe", "landed");
        }
        Ok(Observation::Done)
    }

    async fn apply(&self, _world: &World, _cx: &Cx) -> Result<(), StepError> {
        Ok(())
    }
}
