//! The trial marker: written on one side, timed until the other has applied it. Tells whether a cutover now would be
//! quick; proves nothing about writers that are not held.

use std::time::Duration;

use pgteal_postgres::{Error, marker};
use pgteal_saga::StepError;
use tokio::time::Instant;

use crate::deployment::Direction;
use crate::world::World;

/// How long the slowest database took; `None` if one of them took longer than `bound`.
pub(crate) async fn round_trip(
    world: &World,
    direction: Direction,
    bound: Duration,
) -> Result<Option<Duration>, StepError> {
    let took = world
        .each(direction.from, |from, database| async move {
            let to = world.session(direction.to, database).await?;
            marker::warm(&to).await?;
            let n = marker::write(&from).await?;
            let begun = Instant::now();
            match marker::wait(&to, n, bound).await {
                Ok(()) => Ok(Some(begun.elapsed())),
                Err(Error::NotReached { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await?;
    Ok(took.into_iter().try_fold(Duration::ZERO, |slowest, took| took.map(|took| slowest.max(took))))
}
