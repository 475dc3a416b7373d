//! Opens the gate: clients go on, on the new side, whose lowered fence goes to the disk meanwhile.

use async_trait::async_trait;
use pgteal_postgres::{Error, Session, wal};
use pgteal_saga::{Cx, Durability, Observation, Step, StepError, StepKind};

use crate::deployment::Direction;
use crate::steps::is_lowered;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct Release(pub Direction);

impl Release {
    /// The lowered fence must outlive a crash of the new side. Nobody need wait for that: no commit of a client is on the disk
    /// before it. If the server has crashed since the repoint it is up again.
    async fn lower_for_good(&self, world: &World, session: Session, cx: &Cx) -> Result<(), Error> {
        let fence = world.fence(self.0.to);
        let (_, is_lowered) = futures::try_join!(wal::flush(&session), fence.is_lowered(&session))?;
        if is_lowered { Ok(()) } else { fence.lower(&session, cx.epoch().0.cast_signed()).await }
    }
}

#[async_trait]
impl Step<World> for Release {
    fn id(&self) -> &'static str {
        "release"
    }

    fn title(&self) -> &'static str {
        "release clients"
    }

    fn kind(&self) -> StepKind {
        StepKind::ForwardOnly
    }

    fn durability(&self) -> Durability {
        Durability::Deferred
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let states = world.routers(|router| router.state()).await?;
        let open = states.iter().all(|state| state.held_by.is_none() && state.route == self.0.to);
        let done = open && is_lowered(world, self.0.to).await?;
        Ok(if done { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let lowered = world.each(self.0.to, |session, _| self.lower_for_good(world, session, cx));
        let release = world.routers(|router| router.release(cx.epoch().0));
        futures::try_join!(release, lowered).map(drop)
    }
}
