//! Everything that must be so before clients are held, looked at in one go and told in one go: the stream runs and
//! applies every table, the marker comes back quickly, nobody has left a prepared transaction or a large object, both
//! sides have the same schema, roles and settings, and their fences armed. First of all it seals the schema, so that what
//! was seen still holds when the fence is up.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::{Error, Purpose, activity, catalog, copy, fence, slot, wal};
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};
use tokio::time::{Instant, sleep};

use crate::checks;
use crate::deployment::Direction;
use crate::drift;
use crate::failure::{self, code};
use crate::router::ASK_BOUND;
use crate::steps::{is_fenced, is_lowered, stream, trial};
use crate::world::World;

/// Trial markers until one comes back in time: the first also warms sessions and caches.
const TRIALS: u32 = 5;
/// How long DDL that is under way may take to end; who begins any meanwhile is refused.
const SEAL_BOUND: Duration = Duration::from_secs(10);
/// What is done under the seal besides the wait for a calm moment takes no longer than this.
const SEAL_SPARE: Duration = Duration::from_secs(300);
/// The lag is what the other side has confirmed to have on its disk, which it tells now and then.
const LAG_BOUND: Duration = Duration::from_secs(5);
/// Between two looks at the lag.
const LAG_PAUSE: Duration = Duration::from_millis(200);
/// At most so many obstacles are told.
const SHOWN: usize = 10;

/// See the module.
#[derive(Debug)]
pub struct Guardrails(pub Direction);

/// Seals the schema anew and looks at everything. While a run waits for its moment the seals are kept.
///
/// # Errors
/// Refused with all that stands in the way.
pub(crate) async fn look(world: &World, direction: Direction, cx: &Cx) -> Result<(), StepError> {
    let rails = Guardrails(direction);
    world.unseal().await;
    let mut found = rails.seal(world).await?;
    let drifted = drift::schemas(world, direction).await?;
    let code = if drifted.is_empty() { code::GUARDRAIL } else { code::SCHEMA_DRIFT };
    found.extend(drifted);
    found.extend(drift::clusters(world, direction).await?);
    found.extend(rails.obstacles(world).await?);
    if found.is_empty() {
        found.extend(rails.lag(world, cx).await?);
    }
    if found.is_empty() {
        world.note_guarded();
        return Ok(());
    }
    let more = found.len().saturating_sub(SHOWN);
    found.truncate(SHOWN);
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    Err(StepError::refused("the guardrails", format!("{}{rest}", found.join("; "))).with_code(code))
}

impl Guardrails {
    /// Keeps every schema of the side that clients leave as it is, from here to the fence; what keeps that from being so.
    async fn seal(&self, world: &World) -> Result<Vec<String>, StepError> {
        let side = self.0.from;
        let (fence, server, mut found) = (world.fence(side), &world.cluster(side).server, Vec::new());
        for database in &world.databases {
            let name = &database.name;
            let sealed = async {
                let session = server.connect(name, Purpose::control("seal")).await?;
                if !fence.is_watched(&session).await? {
                    return Ok(Err(format!(
                        "DDL in database {name} on {side} is not watched as `up` left it"
                    )));
                }
                match fence.seal(session, SEAL_BOUND, world.settings.calm_wait + SEAL_SPARE).await {
                    Ok(seal) => Ok(Ok(seal)),
                    Err(Error::NotReached { last, .. }) => {
                        Ok(Err(format!("DDL is under way in database {name} on {side}: {last}")))
                    }
                    Err(error) => Err(error),
                }
            };
            match sealed.await.map_err(|error| failure::server(&error))? {
                Ok(seal) => world.note_seal(database, seal),
                Err(what) => found.push(what),
            }
        }
        Ok(found)
    }

    /// What else stands in the way, as facts.
    async fn obstacles(&self, world: &World) -> Result<Vec<String>, StepError> {
        let Direction { from, to } = self.0;
        let mut found = self.routers(world).await?;
        found.extend(self.whereabouts(world).await?);
        if !is_lowered(world, from).await? {
            found.push(format!("{from} is fenced already, so it is not the active side"));
        }
        if !is_fenced(world, to).await? {
            found.push(format!("{to} is not fenced: somebody could have written there"));
        }
        found.extend(self.databases(world).await?);
        Ok(found)
    }

    async fn routers(&self, world: &World) -> Result<Vec<String>, StepError> {
        let mut found = Vec::new();
        for (router, state) in world.routers.iter().zip(world.routers(|router| router.state()).await?) {
            let name = router.name();
            if state.route != self.0.from {
                found.push(format!("router {name} points to {}, not to {}", state.route, self.0.from));
            }
            if !state.takes_commands {
                found.push(format!("router {name} lets us look and not command"));
            }
            if let Some(epoch) = state.held_by {
                found.push(format!("router {name} is held by epoch {epoch}"));
            }
            if let Some(connections) = state.predecessor {
                found.push(format!(
                    "router {name} has taken over from a process that has not ended, with {connections} connections that \
                     cannot be held"
                ));
            }
        }
        Ok(found)
    }

    /// A router that takes another server for a side, as one does that was started for another green, would move clients to
    /// where nobody follows.
    async fn whereabouts(&self, world: &World) -> Result<Vec<String>, StepError> {
        let (mut found, Some(database)) = (Vec::new(), world.databases.first()) else {
            return Ok(Vec::new());
        };
        for side in [self.0.from, self.0.to] {
            let ours = async { wal::system_identifier(&world.session(side, database).await?).await };
            let ours = ours.await.map_err(|error| failure::server(&error))?;
            let asked = world.routers(|router| router.ask(side, ASK_BOUND)).await?;
            for (router, asked) in world.routers.iter().zip(asked) {
                let astray = asked.astray(side, ours);
                found.extend(astray.map(|what| format!("router {} leads astray: {what}", router.name())));
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
                    found
                        .push(format!("table {name}.{table} on {from} was made after `up` and has no fence"));
                }
                let waived =
                    checks::is_waived(&world.settings.waivers, &checks::data::large_objects_of(name));
                if !waived && catalog::large_objects(&session).await? > 0 {
                    found.push(format!(
                        "database {name} on {from} holds large objects: they would not be on {to}"
                    ));
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

    async fn lag(&self, world: &World, cx: &Cx) -> Result<Option<String>, StepError> {
        stream::fuse(world, self.0.stream()).await?;
        let bound = world.settings.trial_bound;
        for _ in 0..TRIALS {
            if let Some(took) = trial::round_trip(world, self.0, bound).await? {
                cx.note("trial_marker_ms", took.as_secs_f64() * 1000.0);
                return self.confirmed_lag(world).await;
            }
        }
        let bytes = stream::retained_bytes(world, self.0.stream()).await?;
        Ok(Some(format!(
            "{} is not in step: a trial marker did not come back within {} ms (lag_bytes {bytes}); the apply workers of its \
             subscriptions pgteal_{}_* are slow, waiting or gone: see pg_stat_subscription and its log",
            self.0.to,
            bound.as_millis(),
            world.deployment
        )))
    }

    /// What is applied and not yet on the other side's disk is waited for in the pause.
    async fn confirmed_lag(&self, world: &World) -> Result<Option<String>, StepError> {
        let (until, bound) = (Instant::now() + LAG_BOUND, world.settings.max_lag_bytes);
        loop {
            let lags = world
                .each(self.0.from, |session, database| async move {
                    let name = world.stream(self.0.stream(), database);
                    let confirmed = slot::confirmed(&session, &name).await?;
                    let end = wal::insert_lsn(&session).await?;
                    Ok(confirmed.map_or(u64::MAX, |confirmed| end.bytes_since(confirmed)))
                })
                .await?;
            let lag_bytes = lags.into_iter().max().unwrap_or(0);
            if lag_bytes <= bound {
                return Ok(None);
            }
            if Instant::now() >= until {
                let to = self.0.to;
                return Ok(Some(format!(
                    "{to} is not in step: lag_bytes {lag_bytes}, at most {bound} are allowed"
                )));
            }
            sleep(LAG_PAUSE).await;
        }
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

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        Ok(if world.is_guarded() { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        look(world, self.0, cx).await
    }

    async fn undo(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        world.unseal().await;
        Ok(())
    }
}
