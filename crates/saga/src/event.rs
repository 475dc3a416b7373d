//! The events of a run: everything the journal may say.
//! Refuses to know how they are stored ([`crate::stored`]) and which may follow which ([`crate::state`]).

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::fault::{Class, Failure};
use crate::ids::Epoch;
use crate::plan::Plan;

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its number within the run, beginning with 1.
    pub seq: u64,
    /// The epoch it was written under.
    pub epoch: Epoch,
    /// When, in microseconds; never steps back within one process.
    pub at: Timestamp,
    /// Nanoseconds since the driver's process began with the run.
    pub mono_ns: u64,
    /// What happened.
    pub body: EventBody,
}

/// Facts a step noted about what it did: LSNs, counts, durations. Records for people and certificates; no later step
/// may rely on them.
pub type Facts = Map<String, Value>;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum EventBody {
    /// The run exists, with its frozen plan.
    RunCreated {
        /// The plan.
        plan: Plan,
    },
    /// A driver took the run up, after a rest, a crash, or another driver.
    Resumed {
        /// Who drives it now.
        holder: String,
    },
    /// The steps of the open section were found still in effect after a resume.
    Confirmed,
    /// A step begins; nothing was done yet.
    Started {
        /// The step.
        step: String,
    },
    /// `observe` says the step is done.
    Succeeded {
        /// The step.
        step: String,
        /// What it noted.
        facts: Facts,
    },
    /// A try failed.
    Failed {
        /// The step.
        step: String,
        /// Refused or unknown.
        class: Class,
        /// What happened.
        failure: Failure,
        /// Which try since the last resume, beginning with 1.
        attempt: u32,
    },
    /// A step of the open section that had succeeded is no longer in effect.
    Lost {
        /// The step.
        step: String,
        /// What was seen.
        failure: Failure,
    },
    /// The run rests at a gate.
    GateWaiting {
        /// The gate.
        step: String,
        /// What it waits for.
        what: String,
    },
    /// An operator opened the gate.
    GateOpened {
        /// The gate.
        step: String,
        /// Who.
        by: String,
    },
    /// The section's bound passed before the point of no return.
    Deadline {
        /// The step the run was at.
        step: String,
        /// Milliseconds since the section's first step started.
        elapsed_ms: u64,
    },
    /// An operator wants the run undone.
    UndoRequested {
        /// Who.
        by: String,
    },
    /// The undo of a step begins.
    UndoStarted {
        /// The step.
        step: String,
    },
    /// The step is undone.
    Undone {
        /// The step.
        step: String,
    },
    /// A try to undo failed.
    UndoFailed {
        /// The step.
        step: String,
        /// Refused or unknown.
        class: Class,
        /// What happened.
        failure: Failure,
        /// Which try since the last resume, beginning with 1.
        attempt: u32,
    },
    /// The run rests: the tries are used up.
    Stuck {
        /// The step.
        step: String,
        /// What was tried.
        doing: Doing,
        /// The last failure.
        failure: Failure,
    },
    /// The run rests at the operator's word.
    Stopped,
    /// The run is over.
    Finished {
        /// How.
        end: End,
    },
}

/// Which way a stuck run was going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doing {
    /// Forward.
    Apply,
    /// Back.
    Undo,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Every step succeeded.
    Done,
    /// Every started step was undone.
    Unwound,
}

impl EventBody {
    /// The step it is about, if it is about one.
    pub fn step(&self) -> Option<&str> {
        match self {
            Self::Started { step }
            | Self::Succeeded { step, .. }
            | Self::Failed { step, .. }
            | Self::Lost { step, .. }
            | Self::GateWaiting { step, .. }
            | Self::GateOpened { step, .. }
            | Self::Deadline { step, .. }
            | Self::UndoStarted { step }
            | Self::Undone { step }
            | Self::UndoFailed { step, .. }
            | Self::Stuck { step, .. } => Some(step),
            Self::RunCreated { .. }
            | Self::Resumed { .. }
            | Self::Confirmed
            | Self::UndoRequested { .. }
            | Self::Stopped
            | Self::Finished { .. } => None,
        }
    }

    /// Its name in the stored form and in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RunCreated { .. } => "run-created",
            Self::Resumed { .. } => "resumed",
            Self::Confirmed => "confirmed",
            Self::Started { .. } => "started",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Lost { .. } => "lost",
            Self::GateWaiting { .. } => "gate-waiting",
            Self::GateOpened { .. } => "gate-opened",
            Self::Deadline { .. } => "deadline",
            Self::UndoRequested { .. } => "undo-requested",
            Self::UndoStarted { .. } => "undo-started",
            Self::Undone { .. } => "undone",
            Self::UndoFailed { .. } => "undo-failed",
            Self::Stuck { .. } => "stuck",
            Self::Stopped => "stopped",
            Self::Finished { .. } => "finished",
        }
    }
}
