//! What several steps do with one stream: publication and slots on one side, subscriptions on the other, in every
//! database. Each function looks before it acts.

use std::time::Duration;

use pgteal_postgres::subscription::NewSubscription;
use pgteal_postgres::{Error, Purpose, publication, slot, subscription, wal};
use pgteal_saga::{Observation, StepError};

use crate::deployment::Stream;
use crate::failure;
use crate::world::World;

/// A slot is made when every transaction that was open at its start has ended.
const SLOT_BOUND: Duration = Duration::from_secs(120);
/// How long a slot's reader may take to go.
const DROP_BOUND: Duration = Duration::from_secs(10);

/// Publishes all tables, in every database of the publishing side.
pub(crate) async fn publish(world: &World, stream: Stream) -> Result<(), StepError> {
    let id = world.deployment.as_str();
    world
        .in_turn(stream.publisher(), |session, database| async move {
            publication::create(&session, &world.stream(stream, database), id).await
        })
        .await
        .map(drop)
}

/// Makes the slots. After the publication: a slot made before it cannot decode by it.
pub(crate) async fn make_slots(world: &World, stream: Stream) -> Result<(), StepError> {
    let server = &world.cluster(stream.publisher()).server;
    for database in &world.databases {
        // Waits for transactions, so it needs a session that may wait for locks.
        let made = async {
            let purpose = Purpose::long("slot").within(SLOT_BOUND);
            let session = server.connect(&database.name, purpose).await?;
            let name = world.stream(stream, database);
            if slot::find(&session, &name).await?.is_none() {
                slot::create_logical(&session, &name, "pgoutput").await?;
            }
            Ok::<_, Error>(())
        };
        made.await.map_err(|error| failure::server(&error))?;
    }
    Ok(())
}

/// Makes the subscriptions, disabled.
pub(crate) async fn subscribe(world: &World, stream: Stream, copy_data: bool) -> Result<(), StepError> {
    let publisher = &world.cluster(stream.publisher()).replication;
    world
        .in_turn(stream.subscriber(), |session, database| async move {
            let name = world.stream(stream, database);
            if subscription::find(&session, &name).await?.is_some() {
                return Ok(());
            }
            let new = NewSubscription {
                name: &name,
                publication: &name,
                slot: &name,
                publisher,
                database: &database.name,
                copy_data,
                deployment: world.deployment.as_str(),
            };
            // It connects to the publisher and reads its tables: more than a control call may take.
            subscription::create(&session.within(SLOT_BOUND), &new).await
        })
        .await
        .map(drop)
}

/// Removes the stream: subscriptions first, then slots and publications. Bears that any of them is gone.
pub(crate) async fn remove(world: &World, stream: Stream) -> Result<(), StepError> {
    unsubscribe(world, stream).await?;
    unpublish(world, stream).await
}

/// Removes the subscriptions.
pub(crate) async fn unsubscribe(world: &World, stream: Stream) -> Result<(), StepError> {
    world
        .in_turn(stream.subscriber(), |session, database| async move {
            let name = world.stream(stream, database);
            subscription::drop(&session.within(SLOT_BOUND), &name, world.deployment.as_str()).await
        })
        .await
        .map(drop)
}

/// Removes slots and publications. The slots of table copies too (I7): the subscriber drops them only if it reaches the
/// publisher. Those of a cluster whose subscriptions are all ours, as green's are; blue copies no table.
pub(crate) async fn unpublish(world: &World, stream: Stream) -> Result<(), StepError> {
    if stream == Stream::Forward {
        drop_table_copies(world, stream).await?;
    }
    world
        .in_turn(stream.publisher(), |session, database| async move {
            let name = world.stream(stream, database);
            slot::drop(&session, &name, DROP_BOUND).await?;
            publication::drop(&session, &name, world.deployment.as_str()).await
        })
        .await
        .map(drop)
}

async fn drop_table_copies(world: &World, stream: Stream) -> Result<(), StepError> {
    world
        .each(stream.publisher(), |session, database| async move {
            let subscriber = world.session(stream.subscriber(), database).await?;
            for slot in slot::of_table_copies(&session, wal::system_identifier(&subscriber).await?).await? {
                slot::drop(&session, &slot.name, DROP_BOUND).await?;
            }
            Ok(())
        })
        .await
        .map(drop)
}

/// Whether publication and slot are there in every database.
pub(crate) async fn is_published(world: &World, stream: Stream) -> Result<bool, StepError> {
    world
        .all(stream.publisher(), |session, database| async move {
            let name = world.stream(stream, database);
            Ok(publication::find(&session, &name).await?.is_some()
                && slot::find(&session, &name).await?.is_some())
        })
        .await
}

/// Whether publication, slot and subscription are there in every database.
pub(crate) async fn observe(world: &World, stream: Stream) -> Result<Observation, StepError> {
    let subscribed = world
        .all(stream.subscriber(), |session, database| async move {
            Ok(subscription::find(&session, &world.stream(stream, database)).await?.is_some())
        })
        .await?;
    let done = subscribed && is_published(world, stream).await?;
    Ok(if done { Observation::Done } else { Observation::NotDone })
}

/// Whether nothing of it is left.
pub(crate) async fn is_gone(world: &World, stream: Stream) -> Result<bool, StepError> {
    let publisher = world
        .all(stream.publisher(), |session, database| async move {
            let name = world.stream(stream, database);
            Ok(publication::find(&session, &name).await?.is_none()
                && slot::find(&session, &name).await?.is_none())
        })
        .await?;
    let subscriber = world
        .all(stream.subscriber(), |session, database| async move {
            Ok(subscription::find(&session, &world.stream(stream, database)).await?.is_none())
        })
        .await?;
    Ok(publisher && subscriber)
}

/// Whether every subscription is enabled and its worker runs.
pub(crate) async fn is_running(world: &World, stream: Stream) -> Result<bool, StepError> {
    world
        .all(stream.subscriber(), |session, database| async move {
            let found = subscription::find(&session, &world.stream(stream, database)).await?;
            Ok(found.is_some_and(|s| s.enabled && s.worker_pid.is_some()))
        })
        .await
}

/// WAL in bytes that the publisher keeps for this stream: the largest of its slots.
pub(crate) async fn retained_bytes(world: &World, stream: Stream) -> Result<u64, StepError> {
    let kept = world
        .each(stream.publisher(), |session, database| async move {
            let found = slot::find(&session, &world.stream(stream, database)).await?;
            Ok(found.map_or(0, |slot| slot.retained_bytes))
        })
        .await?;
    Ok(kept.into_iter().max().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0))
}

/// I7: stops the run before our slots endanger the publisher's disk.
pub(crate) async fn fuse(world: &World, stream: Stream) -> Result<(), StepError> {
    let (kept, bound) = (retained_bytes(world, stream).await?, world.settings.wal_fuse_bytes);
    if kept <= bound {
        return Ok(());
    }
    let what = format!("retains {kept} bytes of WAL for the stream, more than the fuse of {bound} bytes");
    Err(StepError::refused(stream.publisher().as_str(), what).with_code(failure::code::WAL_FUSE))
}
