//! Puts back, on both sides, the replica identities that were given to tables for the streams.

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use crate::deployment::Side;
use crate::steps::upgrade::set_identities;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct RestoreTables;

#[async_trait]
impl Step<World> for RestoreTables {
    fn id(&self) -> &'static str {
        "restore-tables"
    }

    fn title(&self) -> &'static str {
        "restore table settings"
    }

    fn kind(&self) -> StepKind {
        StepKind::ForwardOnly
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let restored = set_identities::are_put_back(world, Side::Green).await?
            && set_identities::are_put_back(world, Side::Blue).await?;
        Ok(if restored { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, _cx: &Cx) -> Result<(), StepError> {
        set_identities::put_back(world, Side::Green).await?;
        set_identities::put_back(world, Side::Blue).await
    }
}
