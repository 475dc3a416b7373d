//! The point of no return: the new side takes writes, and every router points to it. From the moment its `Started` is
//! durable the run only goes forward.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::Purpose;
use pgteal_saga::{Cx, Durability, Observation, Step, StepError, StepKind};

use crate::carry::{CarryError, triggers};
use crate::deployment::{DatabaseKey, Direction};
use crate::failure::{self, code};
use crate::router::{Router, RouterError};
use crate::steps::switchover::hold_clients::MARGIN;
use crate::steps::switchover::warm_sessions::pinned_sessions;
use crate::steps::{is_lowered, marker_has_arrived, still_fenced, still_held, still_sealed, way_back_stands};
use crate::world::{OnPinned, World};

/// How long sessions that changed since they were warmed may take to be brought up to date. They were, while the
/// marker was on its way; this is only the rest.
const SETTLE_BOUND: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub struct Repoint(pub Direction);

impl Repoint {
    /// Lets the new side take writes in one database: the commit of what was staged, or else all of it now.
    /// Answers whether no layer of the fence was up after that.
    async fn open(&self, world: &World, database: &DatabaseKey, epoch: i64) -> Result<bool, CarryError> {
        let (side, fence) = (self.0.to, world.fence(self.0.to));
        if let Some(staged) = world.staged(side, database) {
            match futures::try_join!(staged.commit(), fence.is_lowered(staged.session())) {
                Ok(((), lowered)) => return Ok(lowered),
                // Lowering it twice is lowering it once.
                Err(error) => tracing::debug!(%error, "the staged lowering is lost, lowering anew"),
            }
        }
        let warm = world.session(side, database).await?;
        // Triggers that would have fired on replicated rows were kept quiet; the first client row must find them awake.
        if triggers::silenced(&warm).await? > 0 {
            let server = &world.cluster(side).server;
            triggers::restore(&mut server.connect(&database.name, Purpose::control("triggers")).await?)
                .await?;
        }
        let ((), lowered) = futures::try_join!(fence.lower(&warm, epoch), fence.is_lowered(&warm))?;
        Ok(lowered)
    }

    /// Points one router to the new side. After a crash it may have released by its own limit or be a new process: then
    /// it is held again first, since a route only changes between transactions.
    async fn point(&self, world: &World, router: &Arc<dyn Router>, epoch: u64) -> Result<(), RouterError> {
        match router.repoint(self.0.to, epoch).await {
            Err(RouterError::Refused { .. }) => {}
            other => return other,
        }
        router.hold(epoch, world.settings.deadline + MARGIN).await?;
        // The old side is fenced: what is open there cannot commit a write any more.
        router.drain(epoch, world.settings.drain_budget, true).await?;
        // Who listens or holds locks needs to be there first; what cannot be had in time does not stop what must go on.
        if let Err(error) = router.settle(epoch, SETTLE_BOUND).await {
            tracing::debug!(%error, "sessions were not settled");
        }
        router.repoint(self.0.to, epoch).await
    }
}

#[async_trait]
impl Step<World> for Repoint {
    fn id(&self) -> &'static str {
        "repoint"
    }

    fn title(&self) -> &'static str {
        "repoint"
    }

    fn kind(&self) -> StepKind {
        StepKind::PointOfNoReturn
    }

    // The second of the two places in the cutover where the journal must be on the disk.
    fn durability(&self) -> Durability {
        Durability::Sync
    }

    /// The last moment to refuse: held (I6), fenced (I1), marker applied (I3), way back in place (I4), schema as the
    /// guardrails saw it, sessions ready.
    async fn guard(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let direction = self.0;
        let epoch = cx.epoch().0;
        let bound = cx.within(SETTLE_BOUND);
        // Looked at last: without a hold the routers refuse this too, and the lost hold is what is to be told.
        let settled = async { Ok(world.routers(|router| router.settle(epoch, bound)).await) };
        let (settled, arrived, stands, (), (), ()) = futures::try_join!(
            settled,
            marker_has_arrived(world, direction),
            way_back_stands(world, direction),
            still_fenced(world, direction.from),
            still_held(world, direction, cx),
            still_sealed(world, direction.from),
        )?;
        world.note_fence_seen(direction.from, true);
        if !world.are_writers_gone() {
            let what = "transactions from before the fence were not seen to end";
            return Err(StepError::refused(direction.from.as_str(), what).with_code(code::LOST_HOLD));
        }
        if !arrived {
            let what = "has not applied the marker that was written after the fence";
            return Err(StepError::refused(direction.to.as_str(), what).with_code(code::LOST_HOLD));
        }
        if !stands {
            let what = "the slot of the way back is gone, or not read from right after what was applied";
            return Err(StepError::refused(direction.to.as_str(), what).with_code(code::LOST_HOLD));
        }
        let settled = settled?;
        cx.note("warm", settled.iter().map(|p| p.warm).sum::<u64>());
        let pinned = settled.iter().map(|p| p.pinned).sum::<u64>();
        if pinned > 0 && world.settings.on_pinned != OnPinned::End {
            // Since the hold: before it nobody was let through to here.
            return Err(pinned_sessions(pinned));
        }
        let unready = settled.iter().map(|p| p.unready).sum::<u64>();
        if unready > 0 {
            let what =
                format!("that listen or hold advisory locks were not ready on {} in time", direction.to);
            let refused = StepError::refused(format!("{unready} client sessions"), what);
            return Err(refused.with_code(code::GUARDRAIL));
        }
        match settled.into_iter().find(|p| p.failed > 0) {
            None => Ok(()),
            Some(p) => Err(StepError::refused(
                format!("{} client sessions", p.failed),
                format!("cannot be moved to {}: {}", direction.to, p.failed_reason.unwrap_or_default()),
            )
            .with_code(code::GUARDRAIL)),
        }
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        // The routers first: where clients are not there yet, the servers need not be asked.
        let states = world.routers(|router| router.state()).await?;
        let there = states.iter().all(|state| state.route == self.0.to);
        let done = there && (world.take_fence_seen(self.0.to) || is_lowered(world, self.0.to).await?);
        Ok(if done { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        // I1 for a run that was resumed here, or tries again: the old side must refuse writes before the new one takes the
        // first. Else the guard has seen it. A side that is dead for good refuses everything.
        if !world.is_lost(self.0.from) && !world.take_fence_seen(self.0.from) {
            still_fenced(world, self.0.from).await.map_err(failure::as_unknown)?;
        }
        let epoch = cx.epoch().0;
        let open = world.databases.iter().map(|database| self.open(world, database, epoch.cast_signed()));
        let open = async {
            let all = futures::future::try_join_all(open).await;
            all.map_err(|error| failure::carry(&error))
        };
        // Clients are held: neither has to wait for the other.
        let point = world.routers(|router| self.point(world, router, epoch));
        let (lowered, _) = futures::try_join!(open, point)?;
        world.note_fence_seen(self.0.to, lowered.into_iter().all(|lowered| lowered));
        Ok(())
    }
}
