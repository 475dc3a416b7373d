//! Waits until green is in step: a marker written on blue comes back quickly, three times in a row. Positions are for
//! telling how far it is, never for deciding.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};
use tokio::time::{Instant, sleep};

use crate::deployment::{Direction, Stream};
use crate::failure::code;
use crate::steps::{stream, trial};
use crate::world::World;

const POLL: Duration = Duration::from_millis(200);
const IN_A_ROW: u32 = 3;

/// See the module.
#[derive(Debug)]
pub struct CatchUp;

#[async_trait]
impl Step<World> for CatchUp {
    fn id(&self) -> &'static str {
        "catch-up"
    }

    fn title(&self) -> &'static str {
        "catch up"
    }

    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let bound = world.settings.trial_bound;
        let trial = trial::round_trip(world, Direction::SWITCH, bound);
        let lag = stream::under_fuse(world, Stream::Forward, trial).await?;
        Ok(if lag.is_some() { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let (mut streak, mut least, mut moved) = (0, u64::MAX, Instant::now());
        while streak < IN_A_ROW {
            if cx.stop().is_requested() {
                return Err(StepError::Stopped);
            }
            stream::fuse(world, Stream::Forward).await?;
            let lag_bytes = stream::retained_bytes(world, Stream::Forward).await?;
            let trial = trial::round_trip(world, Direction::SWITCH, world.settings.trial_bound);
            match stream::under_fuse(world, Stream::Forward, trial).await? {
                Some(took) => {
                    streak += 1;
                    cx.note("marker_ms", took.as_secs_f64() * 1000.0);
                }
                None => streak = 0,
            }
            cx.report(None, format!("lag {lag_bytes} bytes"), None, None, "bytes");
            if lag_bytes < least || streak > 0 {
                (least, moved) = (lag_bytes.min(least), Instant::now());
            }
            let bound = world.settings.stall_bound;
            if moved.elapsed() > bound {
                let what = format!("it has not come closer to blue for {} s", bound.as_secs());
                return Err(StepError::unknown("green", what)
                    .with_status(format!("lag_bytes {lag_bytes}"))
                    .with_code(code::STALLED));
            }
            sleep(POLL).await;
        }
        Ok(())
    }
}
