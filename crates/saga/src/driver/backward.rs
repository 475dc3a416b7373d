//! The way back: undo, look whether it is undone, and what is recorded of it.
//! Refuses to choose the step.

use crate::cx::Cx;
use crate::driver::{Driver, DriverError};
use crate::event::EventBody;
use crate::fault::StepError;
use crate::hooks::{CrashPoint, Fate};
use crate::step::{Observation, Step};

/// What a try to undo came to.
enum Back {
    Undone,
    Failed(StepError),
    Died,
}

impl<W: Send + Sync + 'static> Driver<W> {
    pub(super) async fn begin_undo(&mut self, index: usize) -> Result<(), DriverError> {
        let body = EventBody::UndoStarted { step: self.id(index) };
        self.record(body, self.durability(index)).await?;
        self.reached(index, CrashPoint::UndoStarted)?;
        self.pursue_undo(index).await
    }

    pub(super) async fn pursue_undo(&mut self, index: usize) -> Result<(), DriverError> {
        let (step, cx) = (self.step(index)?, self.cx(index));
        let (hooks, kind) = (&self.setup.hooks, self.state.plan().kind());
        let undone = || hooks.reached(kind, step.id(), CrashPoint::UndoneApplied) == Fate::Die;
        match backward(&*step, &self.setup.world, &cx, undone).await {
            Back::Undone => {
                self.record(EventBody::Undone { step: self.id(index) }, self.durability(index)).await?;
                self.reached(index, CrashPoint::Undone)
            }
            Back::Failed(error) => {
                let Some((class, failure)) = self.classify(index, error) else { return Ok(()) };
                let attempt = self.state.attempts() + 1;
                let body = EventBody::UndoFailed { step: self.id(index), class, failure, attempt };
                self.record(body, self.durability(index)).await
            }
            Back::Died => Err(DriverError::Died { step: self.id(index), point: CrashPoint::UndoneApplied }),
        }
    }

    /// Undoes one step without a record. Says why not, if not.
    pub(super) async fn undo_unrecorded(&self, index: usize) -> Result<(), String> {
        let step = self.step(index).map_err(|error| error.to_string())?;
        match backward(&*step, &self.setup.world, &self.bare_cx(index), || false).await {
            Back::Undone | Back::Died => Ok(()),
            Back::Failed(error) => Err(error.to_string()),
        }
    }
}

async fn backward<W: Send + Sync + 'static>(
    step: &dyn Step<W>,
    world: &W,
    cx: &Cx,
    undone: impl FnOnce() -> bool,
) -> Back {
    if let Err(error) = step.undo(world, cx).await {
        return Back::Failed(error);
    }
    if undone() {
        return Back::Died;
    }
    if !step.kind().undo_is_observed() {
        return Back::Undone;
    }
    match step.observe(world, cx).await {
        // What stands there and is not ours was refused on the way forward, and is not for us to remove.
        Ok(Observation::NotDone | Observation::Foreign(_)) => Back::Undone,
        Ok(Observation::Done) => Back::Failed(
            StepError::unknown(step.id(), "it was undone, but it is still seen to be done")
                .with_code("not-undone"),
        ),
        Err(error) => Back::Failed(error),
    }
}
