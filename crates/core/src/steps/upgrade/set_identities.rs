//! Gives every table of blue that has no usable replica identity one: an existing unique index on not-null columns, else
//! the whole row. Must come before the publication: from then on UPDATE and DELETE fail without one, in production.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::catalog::TableName;
use pgteal_postgres::identity::{self, ReplicaIdentity, TableIdentity};
use pgteal_postgres::{Error, Purpose, Session, SqlState, schema, state};
use pgteal_saga::{Cx, Observation, Step, StepError};
use serde::{Deserialize, Serialize};

use crate::deployment::Side;
use crate::world::World;

/// Under this key a side remembers what was declared before.
const KEY: &str = "identities";
/// How long a busy table is tried again; each try waits 100 ms at most for its lock.
const LOCK_BOUND: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// See the module.
#[derive(Debug)]
pub struct SetIdentities;

/// One table that was given another identity.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Changed {
    table: TableName,
    former: ReplicaIdentity,
    given: ReplicaIdentity,
}

/// By the table's quoted name.
type Memory = BTreeMap<String, Changed>;

/// What a table without a usable identity is given.
fn choose(table: &TableIdentity) -> ReplicaIdentity {
    match &table.candidate_index {
        Some(index) => ReplicaIdentity::Index(index.clone()),
        None => ReplicaIdentity::Full,
    }
}

fn needs_one(table: &TableIdentity) -> bool {
    !table.usable && !table.partitioned
}

async fn recall(session: &Session) -> Result<Option<Memory>, Error> {
    let Some(entry) = state::get(session, KEY).await? else { return Ok(None) };
    let memory = serde_json::from_value(entry.value);
    memory.map(Some).map_err(|e| session.unexpected("recalling replica identities", e.to_string()))
}

/// Declares an identity, trying again while the table is busy.
async fn declare(session: &Session, table: &TableName, identity: &ReplicaIdentity) -> Result<(), Error> {
    let until = tokio::time::Instant::now() + LOCK_BOUND;
    loop {
        match identity::set(session, table, identity).await {
            Err(e) if e.is(&SqlState::LOCK_NOT_AVAILABLE) && tokio::time::Instant::now() < until => {
                tokio::time::sleep(PAUSE).await;
            }
            // A table or index that is gone needs no identity any more.
            Err(e) if e.is(&SqlState::UNDEFINED_TABLE) || e.is(&SqlState::UNDEFINED_OBJECT) => return Ok(()),
            other => return other,
        }
    }
}

/// Tells green what it will have to put back: each side must be able to without the other.
pub(crate) async fn tell_green(world: &World, cx: &Cx) -> Result<(), StepError> {
    let epoch = cx.epoch().0.cast_signed();
    world
        .each(Side::Blue, |blue, database| async move {
            let Some(memory) = recall(&blue).await? else { return Ok(()) };
            remember(&world.session(Side::Green, database).await?, &memory, world, epoch).await
        })
        .await
        .map(drop)
}

async fn remember(session: &Session, memory: &Memory, world: &World, epoch: i64) -> Result<(), Error> {
    let value = serde_json::to_value(memory).unwrap_or_default();
    state::put(session, KEY, &value, epoch, world.deployment.as_str()).await
}

/// Puts back on a side what was declared before, and forgets it. A side that was given up is left as it is.
pub(crate) async fn put_back(world: &World, side: Side) -> Result<(), StepError> {
    if world.is_lost(side) {
        return Ok(());
    }
    world
        .each(side, |warm, database| async move {
            if schema::owner(&warm).await?.is_none() {
                return Ok(());
            }
            let Some(memory) = recall(&warm).await? else { return Ok(()) };
            let purpose = Purpose::control("identities");
            let session = world.cluster(side).server.connect(&database.name, purpose).await?;
            for changed in memory.values() {
                declare(&session, &changed.table, &changed.former).await?;
            }
            state::remove(&warm, KEY).await
        })
        .await
        .map(drop)
}

/// Whether nothing is left to put back on a side.
pub(crate) async fn are_put_back(world: &World, side: Side) -> Result<bool, StepError> {
    if world.is_lost(side) {
        return Ok(true);
    }
    world
        .all(side, |session, _| async move {
            Ok(schema::owner(&session).await?.is_none() || recall(&session).await?.is_none())
        })
        .await
}

#[async_trait]
impl Step<World> for SetIdentities {
    fn id(&self) -> &'static str {
        "set-identities"
    }

    fn title(&self) -> &'static str {
        "set replica identities"
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let done = world
            .all(Side::Blue, |session, _| async move {
                if schema::owner(&session).await?.is_none() || recall(&session).await?.is_none() {
                    return Ok(false);
                }
                Ok(!identity::list(&session).await?.iter().any(needs_one))
            })
            .await?;
        Ok(if done { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let epoch = cx.epoch().0.cast_signed();
        let given = world
            .each(Side::Blue, |warm, database| async move {
                let session =
                    world.blue.server.connect(&database.name, Purpose::control("identities")).await?;
                let mut memory = recall(&warm).await?.unwrap_or_default();
                let todo: Vec<_> = identity::list(&session).await?.into_iter().filter(needs_one).collect();
                for table in &todo {
                    let (former, given) = (table.declared.clone(), choose(table));
                    let changed = Changed { table: table.table.clone(), former, given };
                    // What was there first counts, whatever an interrupted try did since.
                    memory.entry(table.table.quoted()).or_insert(changed);
                }
                remember(&session, &memory, world, epoch).await?;
                for table in &todo {
                    declare(&session, &table.table, &choose(table)).await?;
                }
                Ok(memory.into_values().map(|changed| (database.name.clone(), changed)).collect::<Vec<_>>())
            })
            .await?;
        for (database, changed) in given.into_iter().flatten() {
            cx.note(&format!("{database}.{}", changed.table), changed.given.clause());
        }
        Ok(())
    }

    async fn undo(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        put_back(world, Side::Blue).await
    }
}
