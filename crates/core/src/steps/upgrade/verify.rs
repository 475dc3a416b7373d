//! Compares every table of the two sides, row by row through digests, while blue is written to.

use async_trait::async_trait;
use pgteal_postgres::state;
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};
use serde_json::json;

use super::carry_schema::teller;
use super::claim_green::home;
use crate::compare;
use crate::deployment::{Direction, Side, Stream};
use crate::drift;
use crate::failure::{self, code};
use crate::steps::stream;
use crate::world::World;

/// Under this key green remembers its last verification.
const KEY: &str = "verified";

/// See the module.
#[derive(Debug)]
pub struct Verify;

#[async_trait]
impl Step<World> for Verify {
    fn id(&self) -> &'static str {
        "verify"
    }

    fn title(&self) -> &'static str {
        "verify every table"
    }

    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    async fn observe(&self, world: &World, cx: &Cx) -> Result<Observation, StepError> {
        let look = async { state::get(&home(world).await?, KEY).await };
        let look = async { look.await.map_err(|error| failure::server(&error)) };
        let found = stream::under_fuse(world, Stream::Forward, look).await?;
        let fresh = found.is_some_and(|entry| entry.epoch == cx.epoch().0.cast_signed());
        Ok(if fresh { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let tell = teller(cx, "verifying");
        let compared = compare::live(world, Direction::SWITCH, &tell);
        let report = stream::under_fuse(world, Stream::Forward, compared).await?;
        cx.note("tables", report.tables.len());
        cx.note("rows", report.rows());
        cx.note("unsettled", report.unsettled().count());
        let mismatched: Vec<_> = report.mismatched().map(|t| format!("{}.{}", t.database, t.table)).collect();
        if !mismatched.is_empty() {
            let what = format!("differ between blue and green: {}", mismatched.join(", "));
            return Err(
                StepError::refused(format!("{} tables", mismatched.len()), what).with_code(code::MISMATCH)
            );
        }
        drift::remember(world, Side::Green, &world.author(cx)).await?;
        let value = json!({ "tables": report.tables.len(), "rows": report.rows() });
        let remember = async {
            let (epoch, deployment) = (cx.epoch().0.cast_signed(), world.deployment.as_str());
            state::put(&home(world).await?, KEY, &value, epoch, deployment).await
        };
        remember.await.map_err(|error| failure::server(&error))
    }
}
