//! Opens, for every idle client session, its upstream on the side that clients will go to, with settings and prepared
//! statements replayed, so that the repoint is a swap of pointers.

use std::time::Duration;

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError};

use crate::deployment::Direction;
use crate::failure::code;
use crate::world::{OnPinned, World};

/// How long the routers may take to open and prepare the upstreams of all sessions.
const BOUND: Duration = Duration::from_secs(30);

/// What is said of sessions that may not be ended.
pub(crate) fn pinned_sessions(pinned: u64) -> StepError {
    let what = "hold what cannot be carried, and may not be ended";
    StepError::refused(format!("{pinned} client sessions"), what).with_code(code::DRAIN)
}

/// See the module.
#[derive(Debug)]
pub struct WarmSessions(pub Direction);

#[async_trait]
impl Step<World> for WarmSessions {
    fn id(&self) -> &'static str {
        "warm-sessions"
    }

    fn title(&self) -> &'static str {
        "warm the sessions"
    }

    async fn observe(&self, world: &World, cx: &Cx) -> Result<Observation, StepError> {
        let states = world.routers(|router| router.state()).await?;
        let warm = states.iter().all(|s| s.warm_side == Some(self.0.to) && s.epoch == cx.epoch().0);
        Ok(if warm { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let (to, epoch) = (self.0.to, cx.epoch().0);
        let prepared = world.routers(|router| router.prepare(to, epoch, BOUND)).await?;
        let sum = |of: fn(&crate::router::Prepared) -> u64| prepared.iter().map(of).sum::<u64>();
        let (sessions, failed) = (sum(|p| p.sessions), sum(|p| p.failed));
        cx.note("sessions", sessions);
        cx.note("warm", sum(|p| p.warm));
        let pinned = sum(|p| p.pinned);
        cx.note("pinned", pinned);
        if pinned > 0 && world.settings.on_pinned == OnPinned::Abort {
            return Err(pinned_sessions(pinned));
        }
        if failed == 0 {
            return Ok(());
        }
        // A session without an upstream over there would fail at the cutover: better not to begin.
        let reason = prepared.iter().find_map(|p| p.failed_reason.clone()).unwrap_or_default();
        Err(StepError::refused(
            format!("{failed} of {sessions} client sessions"),
            format!("cannot be opened on {to}: {reason}"),
        )
        .with_code(code::GUARDRAIL))
    }

    async fn undo(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        world.routers(|router| router.unprepare(cx.epoch().0)).await.map(drop)
    }
}
