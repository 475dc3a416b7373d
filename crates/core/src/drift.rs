//! Owns seeing what was changed on one side after `up` and did not reach the other: DDL, privileges, roles, databases.
//! None of it is replicated. Refuses to follow it, and to decide what is done about it.
//!
//! What prints alike on every version is compared side with side. The rest, such as privileges and the bodies of views, is
//! compared on each side with what `up` left there: texts of two versions differ without a cause.

use std::collections::BTreeSet;
use std::time::Duration;

use pgteal_postgres::fingerprint::{self, Details};
use pgteal_postgres::{Error, Purpose, Session, database, role, state};
use pgteal_saga::StepError;
use serde::{Deserialize, Serialize};

use crate::carry::{Author, CarryError, databases, roles, triggers};
use crate::deployment::{DatabaseKey, Direction, Side};
use crate::failure;
use crate::world::World;

/// Under this key each database remembers, on each side, what `up` left there.
const KEY: &str = "baseline";
/// Reading a large schema takes longer than a control call may.
const BOUND: Duration = Duration::from_secs(60);

/// What `up` left in one database of one side, and in its cluster.
#[derive(Serialize, Deserialize)]
struct Baseline {
    details: Details,
    roles: BTreeSet<String>,
    databases: BTreeSet<String>,
}

impl Baseline {
    async fn of(s: &Session) -> Result<Self, Error> {
        let roles = role::list(s).await?.into_iter().map(|role| role.name).collect();
        Ok(Self { details: fingerprint::details(s).await?, roles, databases: databases_of(s).await? })
    }

    async fn recall(s: &Session) -> Result<Option<Self>, Error> {
        let Some(entry) = state::get(s, KEY).await? else { return Ok(None) };
        let baseline = serde_json::from_value(entry.value);
        baseline.map(Some).map_err(|e| s.unexpected("recalling what `up` left", e.to_string()))
    }
}

async fn databases_of(s: &Session) -> Result<BTreeSet<String>, Error> {
    Ok(database::list(s).await?.into_iter().map(|found| found.name).collect())
}

async fn session(world: &World, side: Side, database: &DatabaseKey) -> Result<Session, Error> {
    world.cluster(side).server.connect(&database.name, Purpose::long("schema").within(BOUND)).await
}

/// Remembers on a side what is there now, in every database. What was remembered earlier stays: on blue it must be from
/// before the dump.
///
/// # Errors
/// When a server cannot be asked.
pub(crate) async fn remember(world: &World, side: Side, author: &Author) -> Result<(), StepError> {
    let (id, epoch) = (author.deployment.as_str(), author.epoch.cast_signed());
    for database in &world.databases {
        let work = async {
            let session = session(world, side, database).await?;
            if state::get(&session, KEY).await?.is_some() {
                return Ok(());
            }
            let value = serde_json::to_value(Baseline::of(&session).await?);
            let value = value.map_err(|e| session.unexpected("remembering what is here", e.to_string()))?;
            state::put(&session, KEY, &value, epoch, id).await
        };
        work.await.map_err(|error: Error| failure::server(&error))?;
    }
    Ok(())
}

/// What differs and cannot be made equal by doing it on the other side too: it refuses DDL.
///
/// # Errors
/// When a server cannot be asked.
pub(crate) async fn schemas(world: &World, direction: Direction) -> Result<Vec<String>, StepError> {
    let mut found = Vec::new();
    for (n, database) in world.databases.iter().enumerate() {
        let look = async {
            let blue = session(world, Side::Blue, database).await?;
            let green = session(world, Side::Green, database).await?;
            let mut found = sides(&blue, &green, &database.name).await?;
            found.extend(since(&blue, Side::Blue, &database.name).await?);
            found.extend(since(&green, Side::Green, &database.name).await?);
            if n == 0 {
                let from = if direction.from == Side::Blue { &blue } else { &green };
                found.extend(new_databases(world, from, direction.from).await?);
            }
            Ok(found)
        };
        found.extend(look.await.map_err(|error: CarryError| failure::carry(&error))?);
    }
    Ok(found)
}

/// The schemas side by side. A trigger that is kept quiet on one side for the time of the deployment counts as it was.
async fn sides(blue: &Session, green: &Session, name: &str) -> Result<Vec<String>, CarryError> {
    let read = async |session: &Session| {
        let mut read = fingerprint::read(session).await?;
        for (schema, table, trigger, enabled) in triggers::remembered(session).await? {
            read = read.with_trigger(&schema, &table, &trigger, &enabled);
        }
        Ok::<_, CarryError>(read)
    };
    let (blue, green) = futures::try_join!(read(blue), read(green))?;
    let differs = blue.difference(&green);
    let only = |side, lines: Vec<String>| {
        lines.into_iter().map(move |line| format!("only {side} has in database {name}: {line}"))
    };
    Ok(only("blue", differs.only_first).chain(only("green", differs.only_second)).collect())
}

async fn since(s: &Session, side: Side, name: &str) -> Result<Vec<String>, CarryError> {
    let Some(baseline) = Baseline::recall(s).await? else {
        return Ok(vec![format!("what `up` left in database {name} on {side} was not remembered")]);
    };
    let changes = fingerprint::details(s).await?.changes_since(&baseline.details);
    Ok(changes.into_iter().map(|what| format!("on {side}, since `up`, in database {name}: {what}")).collect())
}

/// Databases that nobody fences, copies or compares.
async fn new_databases(world: &World, from: &Session, side: Side) -> Result<Vec<String>, CarryError> {
    let known = Baseline::recall(from).await?.map(|baseline| baseline.databases).unwrap_or_default();
    let ours = |name: &String| world.databases.iter().any(|database| database.name == *name);
    let all = databases_of(from).await?;
    let new = all.into_iter().filter(|name| !known.contains(name) && !ours(name));
    Ok(new
        .map(|name| format!("database {name} was made on {side} after `up` and would stay there"))
        .collect())
}

/// Roles, their memberships and settings, and what databases are as wholes: what differs can be made equal on the other
/// side, since none of it is DDL of one database.
///
/// # Errors
/// When a server cannot be asked.
pub(crate) async fn clusters(world: &World, direction: Direction) -> Result<Vec<String>, StepError> {
    let Direction { from, to } = direction;
    let Some(first) = world.databases.first() else { return Ok(Vec::new()) };
    let look = async {
        let (there, here) = (world.session(from, first).await?, world.session(to, first).await?);
        // A green that was there before us has roles of its own, which were never carried.
        let apart = match from {
            Side::Blue => BTreeSet::new(),
            Side::Green => {
                let of = |baseline: Option<Baseline>| baseline.map(|b| b.roles).unwrap_or_default();
                let (there, here) = (of(Baseline::recall(&there).await?), of(Baseline::recall(&here).await?));
                there.difference(&here).cloned().collect()
            }
        };
        let names: Vec<String> = world.databases.iter().map(|database| database.name.clone()).collect();
        let mut found = roles::differences_but_for(&there, &here, &apart).await?;
        found.extend(databases::differences(&there, &here, &names).await?);
        Ok(found)
    };
    let found = look.await.map_err(|error: CarryError| failure::carry(&error))?;
    let told = |what| format!("on {to}, unlike on {from}: {what} (to change it there: BEGIN READ WRITE)");
    Ok(found.into_iter().map(told).collect())
}
