//! Everything that must be so before clients are held, looked at in one go and told in one go: the stream runs and
//! applies every table, the marker comes back quickly, nobody has left a prepared transaction, both sides have the same
//! schema and their fences armed.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::{Purpose, activity, copy, fence, fingerprint, wal};
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use crate::deployment::Direction;
use crate::failure::{self, code};
use crate::steps::{is_fenced, is_lowered, stream, trial};
use crate::world::World;

/// Trial markers until one comes back in time: the first also warms sessions and caches.
const TRIALS: u32 = 5;
/// Reading a large schema takes longer than a control call may.
const SCHEMA_BOUND: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Guardrails(pub Direction);

impl Guardrails {
    /// What stands in the way, as facts.
    async fn obstacles(&self, world: &World, cx: &Cx) -> Result<Vec<String>, StepError> {
        let Direction { from, to } = self.0;
        let mut found = self.routers(world).await?;
        if !is_lowered(world, from).await? {
            found.push(format!("{from} is fenced already, so it is not the active side"));
        }
        if !is_fenced(world, to).await? {
            found.push(format!("{to} is not fenced: somebody could have written there"));
        }
        found.extend(self.databases(world).await?);
        found.extend(self.schemas(world).await?);
        if found.is_empty() {
            found.extend(self.lag(world, cx).await?);
        }
        Ok(found)
    }

    async fn routers(&self, world: &World) -> Result<Vec<String>, StepError> {
        let mut found = Vec::new();
        for (router, state) in world.routers.iter().zip(world.routers(|router| router.state()).await?) {
            let name = router.name();
            if state.route != self.0.from {
                found.push(format!("router {name} points to {}, not to {}", state.route, self.0.from));
            }
            if let Some(epoch) = state.held_by {
                found.push(format!("router {name} is held by epoch {epoch}"));
            }
        }
        Ok(found)
    }

    async fn databases(&self, world: &World) -> Result<Vec<String>, StepError> {
        let Direction { from, to } = self.0;
        let there = world
            .each(from, |session, database| async move {
                let mut found = Vec::new();
                let name = &database.name;
                if wal::is_in_recovery(&session).await? {
                    found.push(format!("{from} is in recovery"));
                }
                for prepared in activity::prepared_transactions(&session).await? {
                    if prepared.database == *name {
                        found.push(format!(
                            "prepared transaction {} is open in database {name}",
                            prepared.gid
                        ));
                    }
                }
                for table in fence::unarmed(&session).await? {
                    found.push(format!("table {name}.{table} on {from} has no fence"));
                }
                Ok(found)
            })
            .await?;
        let here = world
            .each(to, |session, database| async move {
                let (mut found, name) = (Vec::new(), &database.name);
                let unapplied = copy::unapplied(&session, &world.stream(self.0.stream(), database)).await?;
                for table in unapplied.unknown {
                    found.push(format!(
                        "table {name}.{table} is not in the stream: its rows would be missing on {to}"
                    ));
                }
                for table in unapplied.not_ready {
                    found.push(format!("table {name}.{table} is not copied yet"));
                }
                for table in fence::unarmed(&session).await? {
                    found.push(format!("table {name}.{table} on {to} has no fence"));
                }
                Ok(found)
            })
            .await?;
        Ok(there.into_iter().chain(here).flatten().collect())
    }

    /// DDL is not replicated: a difference would break the stream, or the clients, or the way back.
    async fn schemas(&self, world: &World) -> Result<Vec<String>, StepError> {
        let mut found = Vec::new();
        for database in &world.databases {
            let read = async {
                let purpose = || Purpose::long("schema").within(SCHEMA_BOUND);
                let blue = world.blue.server.connect(&database.name, purpose()).await?;
                let green = world.green.server.connect(&database.name, purpose()).await?;
                futures::try_join!(fingerprint::read(&blue), fingerprint::read(&green))
            };
            let (blue, green) = read.await.map_err(|error| failure::server(&error))?;
            let differs = blue.difference(&green);
            let name = &database.name;
            found.extend(
                differs.only_first.iter().map(|line| format!("only blue has in database {name}: {line}")),
            );
            found.extend(
                differs.only_second.iter().map(|line| format!("only green has in database {name}: {line}")),
            );
        }
        Ok(found)
    }

    async fn lag(&self, world: &World, cx: &Cx) -> Result<Option<String>, StepError> {
        stream::fuse(world, self.0.stream()).await?;
        let bound = world.settings.trial_bound;
        for _ in 0..TRIALS {
            if let Some(took) = trial::round_trip(world, self.0, bound).await? {
                cx.note("trial_marker_ms", took.as_secs_f64() * 1000.0);
                return Ok(None);
            }
        }
        let bytes = stream::retained_bytes(world, self.0.stream()).await?;
        Ok(Some(format!(
            "{} is not in step: a trial marker did not come back within {} ms (lag_bytes {bytes})",
            self.0.to,
            bound.as_millis()
        )))
    }
}

#[async_trait]
impl Step<World> for Guardrails {
    fn id(&self) -> &'static str {
        "guardrails"
    }

    fn title(&self) -> &'static str {
        "check the guardrails"
    }

    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    async fn observe(&self, world: &World, cx: &Cx) -> Result<Observation, StepError> {
        let found = self.obstacles(world, cx).await?;
        if found.is_empty() {
            return Ok(Observation::Done);
        }
        let shown: Vec<_> = found.iter().take(10).cloned().collect();
        let more = found.len().saturating_sub(shown.len());
        let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
        Err(StepError::refused("the guardrails", format!("{}{rest}", shown.join("; ")))
            .with_code(code::GUARDRAIL))
    }

    async fn apply(&self, _world: &World, _cx: &Cx) -> Result<(), StepError> {
        Ok(())
    }
}
