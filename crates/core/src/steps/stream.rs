//! What several steps do with one stream: publication and slots on one side, subscriptions on the other, in every
//! database. Each function looks before it acts.

use std::time::Duration;

use pgteal_postgres::slot::Slot;
use pgteal_postgres::subscription::NewSubscription;
use pgteal_postgres::{Error, Purpose, Session, publication, slot, subscription, wal};
use pgteal_saga::{Cx, Observation, StepError};
use tokio::time::sleep;

use crate::deployment::{DatabaseKey, Stream};
use crate::failure;
use crate::world::World;

/// A slot is made when every transaction that was open at its start has ended.
const SLOT_BOUND: Duration = Duration::from_secs(120);
/// How long a slot's reader may take to go.
const DROP_BOUND: Duration = Duration::from_secs(10);
/// How often the fuse is looked at during work that does not look by itself.
const FUSE_POLL: Duration = Duration::from_secs(1);

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

/// Remembers on the publishing side which cluster is about to copy its tables: see [`slot::of_table_copies`].
pub(crate) async fn remember_subscriber(world: &World, stream: Stream, cx: &Cx) -> Result<(), StepError> {
    let (epoch, deployment) = (cx.epoch().0.cast_signed(), world.deployment.as_str());
    world
        .each(stream.publisher(), |session, database| async move {
            let subscriber = world.session(stream.subscriber(), database).await?;
            let cluster = wal::system_identifier(&subscriber).await?;
            slot::remember_subscriber(&session, cluster, epoch, deployment).await
        })
        .await
        .map(drop)
}

/// Removes the stream. Bears that any of it is gone. What the publisher keeps WAL for goes also when the subscriber does
/// not answer (I7); then this fails all the same, because nobody has seen what is left there.
pub(crate) async fn remove(world: &World, stream: Stream) -> Result<(), StepError> {
    let unsubscribed = unsubscribe(world, stream).await;
    unpublish(world, stream).await?;
    unsubscribed
}

/// Removes the subscriptions. With a subscriber that does not answer the slots go nevertheless, before it fails.
pub(crate) async fn unsubscribe(world: &World, stream: Stream) -> Result<(), StepError> {
    let dropped = match world.is_lost(stream.subscriber()) {
        true => Ok(()),
        false => drop_subscriptions(world, stream).await,
    };
    if dropped.is_err() || world.is_lost(stream.subscriber()) {
        drop_slots(world, stream).await?;
    }
    dropped
}

async fn drop_subscriptions(world: &World, stream: Stream) -> Result<(), StepError> {
    world
        .in_turn(stream.subscriber(), |session, database| async move {
            let name = world.stream(stream, database);
            subscription::drop(&session.within(SLOT_BOUND), &name, world.deployment.as_str()).await
        })
        .await
        .map(drop)
}

/// Removes slots and publications.
pub(crate) async fn unpublish(world: &World, stream: Stream) -> Result<(), StepError> {
    drop_slots(world, stream).await?;
    if world.is_lost(stream.publisher()) {
        return Ok(());
    }
    world
        .in_turn(stream.publisher(), |session, database| async move {
            let name = world.stream(stream, database);
            publication::drop(&session, &name, world.deployment.as_str()).await
        })
        .await
        .map(drop)
}

/// Removes the slots, those of table copies too: the subscriber drops them only if it reaches the publisher.
async fn drop_slots(world: &World, stream: Stream) -> Result<(), StepError> {
    if world.is_lost(stream.publisher()) {
        return Ok(());
    }
    world
        .in_turn(stream.publisher(), |session, database| async move {
            for slot in slots(world, stream, &session, database).await? {
                slot::drop(&session, &slot.name, DROP_BOUND).await?;
            }
            Ok(())
        })
        .await
        .map(drop)
}

/// The slots that the publisher has for the stream in one database. Only green copies tables.
async fn slots(
    world: &World,
    stream: Stream,
    session: &Session,
    database: &DatabaseKey,
) -> Result<Vec<Slot>, Error> {
    let mut all = match stream {
        Stream::Forward => slot::of_table_copies(session).await?,
        Stream::Reverse => Vec::new(),
    };
    all.extend(slot::find(session, &world.stream(stream, database)).await?);
    Ok(all)
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

/// Whether publication, slot and subscription are there in every database. Of a side that was given up nothing counts.
pub(crate) async fn observe(world: &World, stream: Stream) -> Result<Observation, StepError> {
    if world.is_lost(stream.publisher()) || world.is_lost(stream.subscriber()) {
        return Ok(Observation::NotDone);
    }
    let subscribed = world
        .all(stream.subscriber(), |session, database| async move {
            Ok(subscription::find(&session, &world.stream(stream, database)).await?.is_some())
        })
        .await?;
    let done = subscribed && is_published(world, stream).await?;
    Ok(if done { Observation::Done } else { Observation::NotDone })
}

/// Whether nothing of it is left, but on a side that was given up.
pub(crate) async fn is_gone(world: &World, stream: Stream) -> Result<bool, StepError> {
    let unpublished = world.is_lost(stream.publisher())
        || world
            .all(stream.publisher(), |session, database| async move {
                Ok(publication::find(&session, &world.stream(stream, database)).await?.is_none()
                    && slots(world, stream, &session, database).await?.is_empty())
            })
            .await?;
    let unsubscribed = world.is_lost(stream.subscriber())
        || world
            .all(stream.subscriber(), |session, database| async move {
                Ok(subscription::find(&session, &world.stream(stream, database)).await?.is_none())
            })
            .await?;
    Ok(unpublished && unsubscribed)
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

/// WAL in bytes that the publisher keeps for this stream: the most that any of its slots does, those of table copies too.
pub(crate) async fn retained_bytes(world: &World, stream: Stream) -> Result<u64, StepError> {
    let kept = world
        .each(stream.publisher(), |session, database| async move {
            let slots = slots(world, stream, &session, database).await?;
            Ok(slots.into_iter().map(|slot| slot.retained_bytes).max().unwrap_or(0))
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

/// I7: does `work` and looks at the fuse all the while, and once more when it fails: the fuse asks the publisher alone, so
/// that it blows also when the subscriber does not answer.
pub(crate) async fn under_fuse<T>(
    world: &World,
    stream: Stream,
    work: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StepError> {
    let blown = async {
        loop {
            sleep(FUSE_POLL).await;
            match fuse(world, stream).await {
                Err(error) if is_blown(&error) => return error,
                // Who does not answer now is asked again, and is the work's own trouble.
                Ok(()) | Err(_) => {}
            }
        }
    };
    let error = tokio::select! {
        done = work => match done {
            Ok(done) => return Ok(done),
            Err(error) => error,
        },
        error = blown => return Err(error),
    };
    match fuse(world, stream).await {
        Err(blown) if is_blown(&blown) => Err(blown),
        Ok(()) | Err(_) => Err(error),
    }
}

fn is_blown(error: &StepError) -> bool {
    matches!(error, StepError::Refused(failure) if failure.code.as_deref() == Some(failure::code::WAL_FUSE))
}
