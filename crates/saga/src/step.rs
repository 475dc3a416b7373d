//! What a step is: observe, apply, undo, and how much of the run's safety hangs on it.
//! Refuses to hold state: what a step did is in the world and in the journal, never in the step.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::cx::Cx;
use crate::fault::StepError;
use crate::journal::Durability;

/// What a look at the world shows of a step's effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// Nothing of it is there, or not all of it.
    NotDone,
    /// All of it is there, and it is ours.
    Done,
    /// Something that is not ours stands in its place: refused, never adopted, never dropped.
    Foreign(String),
}

/// What sort of step it is. Frozen in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// Changes the world; `undo` puts it back, and is done when `observe` says [`Observation::NotDone`].
    Effect,
    /// Leaves nothing behind to put back (a check, a drain, a wait). `undo` runs, `observe` is not asked after it.
    Transient,
    /// Waits for a person or a measured condition. Not done after `apply` is not a failure: the run rests.
    Gate,
    /// From the moment its `Started` is durable the run only goes forward.
    PointOfNoReturn,
    /// Comes after the point of no return; is never undone.
    ForwardOnly,
}

impl StepKind {
    /// Whether the run can no longer unwind once a step of this kind has started.
    pub fn is_forward(self) -> bool {
        matches!(self, Self::PointOfNoReturn | Self::ForwardOnly)
    }

    /// Whether `undo` is over only when `observe` no longer says Done.
    pub fn undo_is_observed(self) -> bool {
        self == Self::Effect
    }
}

/// One entry of the runbook, over a world `W`.
///
/// A step must bear: `apply` after a part of it or all of it was done before; `undo` when nothing, a part or all was
/// done, and twice; being dropped at any `await` when a section's deadline passes, or a look when the guard refuses (then `undo` must first make sure
/// that nothing of the dropped `apply` is still in flight, such as a query that a server is still running).
/// It reads its parameters from [`Cx::params`] and keeps nothing between calls.
#[async_trait]
pub trait Step<W: Send + Sync + 'static>: Send + Sync {
    /// The name everywhere: lower-case letters, digits and `-`.
    fn id(&self) -> &'static str;

    /// A few words for people, such as `hold clients`.
    fn title(&self) -> &'static str;

    /// What sort of step it is.
    fn kind(&self) -> StepKind {
        StepKind::Effect
    }

    /// Whether its records must be on the disk before the run goes on. [`Durability::Deferred`] survives the death of
    /// the process, not that of the machine. It is honoured inside the section only, where each sync is a wait for
    /// clients; there the start of the section's first step and of the point of no return are synced nevertheless, and no
    /// success is: it is written together with what comes next.
    fn durability(&self) -> Durability {
        Durability::Sync
    }

    /// Looks before `Started` is recorded whether the step may begin at all: that what earlier steps brought about
    /// still holds. Refusing here unwinds the run without this step having started, which for the point of no return
    /// is the last moment to refuse. [`Step::observe`] is asked at the same time, and dropped when this refuses.
    /// Inside the section both may be asked while the step before is looked at, and are asked again before each further
    /// try of the same process that can still be undone.
    ///
    /// # Errors
    /// Refused if the step must not begin; Unknown if that could not be found out.
    async fn guard(&self, _world: &W, _cx: &Cx) -> Result<(), StepError> {
        Ok(())
    }

    /// Looks at the world. Changes nothing. Asked first beside [`Step::guard`], before `Started` is recorded; where that
    /// fails or finds what is not ours, the point of no return is not passed, and any other step is looked at again
    /// once it has started.
    ///
    /// # Errors
    /// Unknown if the world could not be looked at.
    async fn observe(&self, world: &W, cx: &Cx) -> Result<Observation, StepError>;

    /// Brings the effect about. Its `Ok` is not believed until `observe` says Done.
    ///
    /// # Errors
    /// Refused if there is certainly no change that `undo` would not take back; Unknown if there may be.
    async fn apply(&self, world: &W, cx: &Cx) -> Result<(), StepError>;

    /// Puts the world back. Touches nothing that is not ours.
    ///
    /// # Errors
    /// Any error is tried again within bounds, then the run rests as stuck.
    async fn undo(&self, _world: &W, _cx: &Cx) -> Result<(), StepError> {
        Ok(())
    }
}
