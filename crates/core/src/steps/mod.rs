//! The steps of all runbooks, one file each, and what several of them ask of the world. A step keeps
//! nothing between calls; what it did is in the servers and in the journal.

use pgteal_postgres::{marker, replication_origin, slot};
use pgteal_saga::{Cx, StepError};

use crate::deployment::{Direction, Side};
use crate::failure::code;
use crate::world::World;

pub mod retire;
pub(crate) mod stream;
pub mod switchover;
pub(crate) mod trial;
pub mod upgrade;

/// I6: every router still holds by our epoch and still points to the old side; nothing that an earlier step saw is
/// relied on.
pub(crate) async fn still_held(world: &World, direction: Direction, cx: &Cx) -> Result<(), StepError> {
    let epoch = cx.epoch().0;
    for state in world.routers(|router| router.state()).await? {
        if state.held_by != Some(epoch) || state.route != direction.from {
            let what = format!("expected a hold by epoch {epoch} with the route to {}", direction.from);
            let held =
                state.held_by.map_or_else(|| "no hold".into(), |epoch| format!("a hold by epoch {epoch}"));
            return Err(
                lost("the routers", &what).with_status(format!("{held} with the route to {}", state.route))
            );
        }
    }
    Ok(())
}

/// I6 and I1: the side still refuses writes in every database.
pub(crate) async fn still_fenced(world: &World, side: Side) -> Result<(), StepError> {
    if is_fenced(world, side).await? { Ok(()) } else { Err(lost(side.as_str(), "the fence is not raised")) }
}

/// Whether every layer of the fence is up in every database of the side.
pub(crate) async fn is_fenced(world: &World, side: Side) -> Result<bool, StepError> {
    let fence = world.fence(side);
    let looks = |session, _| {
        let fence = &fence;
        async move { fence.is_raised(&session).await }
    };
    world.all(side, looks).await
}

/// Whether no layer of the fence is up in any database of the side.
pub(crate) async fn is_lowered(world: &World, side: Side) -> Result<bool, StepError> {
    let fence = world.fence(side);
    let looks = |session, _| {
        let fence = &fence;
        async move { fence.is_lowered(&session).await }
    };
    world.all(side, looks).await
}

/// I3: in every database a marker was written after the fence, and the other side has applied it.
pub(crate) async fn marker_has_arrived(world: &World, direction: Direction) -> Result<bool, StepError> {
    world
        .all(direction.from, |session, database| async move {
            // Asked at the same time: a marker that arrives in between is only seen by the next look.
            let to = world.session(direction.to, database).await?;
            let (written, arrived) =
                futures::try_join!(marker::written_after_fence(&session), marker::read(&to))?;
            Ok(written.is_some_and(|written| arrived >= written))
        })
        .await
}

/// I4: in every database there is a slot of the way back from before any client write on the new side, and the
/// subscription that will read it begins at or past what this process made durable there after the marker had arrived.
pub(crate) async fn way_back_stands(world: &World, direction: Direction) -> Result<bool, StepError> {
    let opposite = direction.opposite();
    world
        .all(direction.to, |session, database| async move {
            let Some(flushed) = world.flushed(database) else { return Ok(false) };
            let subscriber = world.session(direction.from, database).await?;
            let name = world.stream(opposite, database);
            let (origin, slot) = futures::try_join!(
                replication_origin::position(&subscriber, &name),
                slot::confirmed(&session, &name)
            )?;
            Ok(origin.is_some_and(|lsn| lsn >= flushed) && slot.is_some_and(|lsn| lsn <= flushed))
        })
        .await
}

/// What the guardrails saw still holds: nobody has changed a schema of the side since, nor what belongs to its cluster.
pub(crate) async fn still_sealed(world: &World, side: Side) -> Result<(), StepError> {
    let looks = world.databases.iter().map(|database| async move {
        let Some(seal) = world.seal(database) else {
            return Err("nobody keeps its schema as it is".to_owned());
        };
        match seal.changes().await {
            Ok(changes) if changes.is_empty() => Ok(()),
            Ok(changes) => Err(format!("there were changes of {}", changes.join(", "))),
            Err(error) => Err(format!("what kept its schema as it is was lost: {error}")),
        }
        .map_err(|what| format!("since the guardrails, in database {}: {what}", database.name))
    });
    match futures::future::try_join_all(looks).await {
        Ok(_) => Ok(()),
        Err(what) => Err(StepError::refused(side.as_str(), what).with_code(code::GUARDRAIL)),
    }
}

fn lost(object: &str, what: &str) -> StepError {
    StepError::refused(object, what).with_code(code::LOST_HOLD)
}
