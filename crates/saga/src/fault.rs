//! How a step fails: certainly without effect, or possibly with one.
//! Refuses to know what follows from it; that is decided from the journal.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The code of a failure that says: a driver with a higher epoch is at work. Neither tried again nor
/// unwound: what this driver has done is the other one's by now.
pub const STALE_EPOCH: &str = "stale-epoch";

/// What went wrong, with which object, and what was last seen of it. Goes to the journal: never put a secret in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A stable word for the sort of failure, by which the command finds its advice; `None` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The object: a slot, a table, a server.
    pub object: String,
    /// What happened, as a fact.
    pub what: String,
    /// What was last seen while waiting, if anything was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_status: Option<String>,
}

impl Failure {
    /// A failure of `object`: `what` happened.
    pub fn new(object: impl Into<String>, what: impl Into<String>) -> Self {
        Self { code: None, object: object.into(), what: what.into(), last_status: None }
    }

    /// Whether a driver with a higher epoch is at work: whoever hears that changes nothing more, not even back.
    pub fn is_stale(&self) -> bool {
        self.code.as_deref() == Some(STALE_EPOCH)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.what)?;
        match &self.last_status {
            Some(status) => write!(f, " (last seen: {status})"),
            None => Ok(()),
        }
    }
}

/// Which of the two sorts a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Certainly no net change that the step's undo would not take back: the run unwinds, or rests where it cannot. Inside
    /// the section, past the point of no return, it can do neither: there it counts as unknown, see [`STALE_EPOCH`].
    Refused,
    /// It may have happened: look again, and if need be try again.
    Unknown,
}

/// Why a step's `observe`, `apply`, `undo` or `guard` did not come to an end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// The world said no, and what was done up to there is taken back by `undo`.
    #[error("refused: {0}")]
    Refused(Failure),
    /// It may have happened or not: a connection broke, a wait ran out.
    #[error("not known: {0}")]
    Unknown(Failure),
    /// The step saw [`Cx::stop`](crate::cx::Cx::stop) and came to rest at a safe point. Only then may it say so.
    #[error("stopped at the operator's word")]
    Stopped,
}

impl StepError {
    /// `object` refused: `what`.
    pub fn refused(object: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Refused(Failure::new(object, what))
    }

    /// Nobody knows whether `object` was changed: `what`.
    pub fn unknown(object: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Unknown(Failure::new(object, what))
    }

    /// With what was last seen of the object.
    #[must_use]
    pub fn with_status(mut self, status: impl Into<String>) -> Self {
        if let Self::Refused(failure) | Self::Unknown(failure) = &mut self {
            failure.last_status = Some(status.into());
        }
        self
    }

    /// With a stable word by which advice is found.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        if let Self::Refused(failure) | Self::Unknown(failure) = &mut self {
            failure.code = Some(code.into());
        }
        self
    }
}
