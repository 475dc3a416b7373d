//! Sets the sequences of the side that clients go to well ahead, so that in the pause it is enough to know that none has
//! passed the value it was given.

use std::sync::Arc;

use async_trait::async_trait;
use pgteal_saga::{Cx, Observation, Step, StepError, StepKind};

use crate::carry::CarryError;
use crate::carry::sequences::{Carrier, GAP};
use crate::deployment::Direction;
use crate::failure::{self, code};
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub struct AdvanceSequences(pub Direction);

#[async_trait]
impl Step<World> for AdvanceSequences {
    fn id(&self) -> &'static str {
        "advance-sequences"
    }

    fn title(&self) -> &'static str {
        "advance sequences"
    }

    // A sequence that was set ahead on the side that nobody writes to is nothing to put back.
    fn kind(&self) -> StepKind {
        StepKind::Transient
    }

    async fn observe(&self, world: &World, _cx: &Cx) -> Result<Observation, StepError> {
        let known = world.databases.iter().all(|database| world.carrier(database).is_some());
        Ok(if known { Observation::Done } else { Observation::NotDone })
    }

    async fn apply(&self, world: &World, cx: &Cx) -> Result<(), StepError> {
        let (mut advanced, mut missing) = (0, Vec::new());
        for database in &world.databases {
            let work = async {
                let from = world.session(self.0.from, database).await?;
                let to = world.session(self.0.to, database).await?;
                Carrier::advance(&from, &to, GAP).await
            };
            let carrier = work.await.map_err(|error: CarryError| failure::carry(&error))?;
            advanced += carrier.advanced;
            missing.extend(carrier.missing.iter().map(|name| format!("{}.{name}", database.name)));
            world.note_carrier(database, Arc::new(carrier));
        }
        cx.note("advanced", advanced);
        if missing.is_empty() {
            return Ok(());
        }
        let what = format!("{} does not have: {}", self.0.to, missing.join(", "));
        Err(StepError::refused("sequences", what).with_code(code::GUARDRAIL))
    }
}
