//! Owns comparing the tables of a deployment's two sides, whichever is active and whether or not it is written to.
//! Refuses to decide what a difference means.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::marker;
use pgteal_saga::StepError;

use crate::deployment::Direction;
use crate::failure;
use crate::progress::Progress;
use crate::verify::{self, Effort, Quiet, Report, SyncPoint, VerifyError};
use crate::world::World;

/// A marker's round trip: when it is back, the follower has applied all that was committed before it was written.
struct RoundTrip<'a> {
    world: &'a World,
    direction: Direction,
    bound: Duration,
}

#[async_trait]
impl SyncPoint for RoundTrip<'_> {
    async fn reach(&self, database: &str) -> verify::Result<()> {
        let Some(key) = self.world.databases.iter().find(|d| d.name == database) else { return Ok(()) };
        let from = self.world.session(self.direction.from, key).await?;
        let to = self.world.session(self.direction.to, key).await?;
        let n = marker::write(&from).await?;
        Ok(marker::wait(&to.within(self.bound), n, self.bound).await?)
    }
}

/// Compares every table while `direction.from` is written to and `direction.to` follows it.
///
/// # Errors
/// When a server cannot be asked, or the follower does not keep up. A difference is a result.
pub async fn live(world: &World, direction: Direction, progress: &Progress<'_>) -> Result<Report, StepError> {
    let round_trip = RoundTrip { world, direction, bound: world.settings.stall_bound };
    run(world, direction, &round_trip, Effort::LIVE, progress).await
}

/// Compares every table of two sides that nobody writes to.
///
/// # Errors
/// When a server cannot be asked.
pub async fn quiet(
    world: &World,
    direction: Direction,
    progress: &Progress<'_>,
) -> Result<Report, StepError> {
    run(world, direction, &Quiet, Effort::QUIET, progress).await
}

async fn run(
    world: &World,
    direction: Direction,
    sync: &dyn SyncPoint,
    effort: Effort,
    progress: &Progress<'_>,
) -> Result<Report, StepError> {
    let names: Vec<String> = world.databases.iter().map(|database| database.name.clone()).collect();
    let (from, to) = (&world.cluster(direction.from).server, &world.cluster(direction.to).server);
    verify::verify(from, to, &names, sync, &effort, progress).await.map_err(|error| match error {
        VerifyError::Postgres(error) => failure::server(&error),
        other @ VerifyError::NotInStep { .. } => StepError::unknown("verification", other.to_string()),
    })
}
