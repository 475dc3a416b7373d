//! One try of a step: observe, apply if need be, observe again. What `apply` says of itself does not count.
//! Refuses to record anything.

use crate::cx::Cx;
use crate::fault::StepError;
use crate::step::{Observation, Step};

/// What a try came to.
pub(super) enum Verdict {
    /// `observe` says Done.
    Done,
    /// `apply` came back, and `observe` says it is not done.
    NotDone,
    /// It failed.
    Failed(StepError),
}

/// Applies `step`, from what was `seen` of it, if it was looked at already. Answers what ends the try before it is looked
/// at again: that there was nothing to apply, or that it failed.
pub(super) async fn apply<W: Send + Sync + 'static>(
    step: &dyn Step<W>,
    world: &W,
    cx: &Cx,
    seen: Option<Verdict>,
) -> Option<Verdict> {
    let seen = match seen {
        Some(seen) => seen,
        None => look(step, world, cx).await,
    };
    match seen {
        Verdict::NotDone => step.apply(world, cx).await.err().map(Verdict::Failed),
        other => Some(other),
    }
}

/// Asks the guard of a step that has not started, and looks at it. Both only look, so they look at the same time; a guard
/// that refuses ends the other's look.
pub(super) async fn enter<W: Send + Sync + 'static>(
    step: &dyn Step<W>,
    world: &W,
    cx: &Cx,
) -> Result<Verdict, StepError> {
    let looked = async { Ok(look(step, world, cx).await) };
    tokio::try_join!(step.guard(world, cx), looked).map(|((), seen)| seen)
}

/// What `observe` says now.
pub(super) async fn look<W: Send + Sync + 'static>(step: &dyn Step<W>, world: &W, cx: &Cx) -> Verdict {
    match step.observe(world, cx).await {
        Ok(Observation::Done) => Verdict::Done,
        Ok(Observation::NotDone) => Verdict::NotDone,
        Ok(Observation::Foreign(what)) => {
            Verdict::Failed(StepError::refused(what, "it is there and it is not ours").with_code("foreign"))
        }
        Err(error) => Verdict::Failed(error),
    }
}
