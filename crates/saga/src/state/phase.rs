//! The words for where a run and its steps stand.
//! Refuses to know how one becomes another ([`super::table`]).

use jiff::Timestamp;

use crate::event::Doing;
use crate::fault::{Class, Failure};

/// Where one step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Not begun.
    Pending,
    /// Begun; its effect may be there in part or in full.
    Running,
    /// Done.
    Succeeded,
    /// Being undone.
    Undoing,
    /// Undone.
    Undone,
}

/// Why a run unwinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A step was refused.
    Refused {
        /// The step.
        step: String,
        /// What happened.
        failure: Failure,
    },
    /// A step of the section was no longer in effect after a resume.
    Lost {
        /// The step.
        step: String,
        /// What was seen.
        failure: Failure,
    },
    /// The section's bound passed.
    Deadline {
        /// The step the run was at.
        step: String,
        /// Milliseconds since the section began.
        elapsed_ms: u64,
        /// The last failure of the step the run was at, if it had one.
        last: Option<Failure>,
    },
    /// An operator wanted it.
    Operator {
        /// Who.
        by: String,
    },
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { step, failure } => write!(f, "step {step} was refused: {failure}"),
            Self::Lost { step, failure } => write!(f, "step {step} is no longer in effect: {failure}"),
            Self::Deadline { step, elapsed_ms, last } => {
                write!(f, "the deadline passed at step {step} after {elapsed_ms} ms")?;
                last.as_ref().map_or(Ok(()), |failure| write!(f, " ({failure})"))
            }
            Self::Operator { by } => write!(f, "undo was requested by {by}"),
        }
    }
}

/// Which way the run goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Through the steps.
    Forward,
    /// Back through those that started.
    Unwinding(Cause),
    /// Over: every step succeeded.
    Done,
    /// Over: everything was undone.
    Unwound(Cause),
}

/// Why a run that is not over does not move. Only a resume ends a rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// The tries are used up.
    Stuck {
        /// The step.
        step: String,
        /// What was tried.
        doing: Doing,
        /// The last failure.
        failure: Failure,
    },
    /// A gate is closed.
    Waiting {
        /// The gate.
        step: String,
        /// What it waits for.
        what: String,
    },
    /// The operator stopped it.
    Stopped,
}

/// The failed tries of the step the run is at, since the last resume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// How many tries failed.
    pub attempts: u32,
    /// When the first did.
    pub since: Timestamp,
    /// When the last did.
    pub last_at: Timestamp,
    /// Of which sort the last was.
    pub class: Class,
    /// What it was.
    pub failure: Failure,
}
