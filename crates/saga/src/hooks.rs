//! The moments at which a test may kill the driver, and the hook that does so in a real process.
//! Refuses to change anything: a hook can end the run, never steer it.

use std::fmt;
use std::str::FromStr;

/// A moment at which a crash must do no harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CrashPoint {
    /// `Started` is durable, nothing was done yet.
    Started,
    /// `apply` came back, nothing was recorded yet.
    Applied,
    /// `Succeeded` is decided and recorded; inside the section it may not be in the journal before the next record.
    Succeeded,
    /// `UndoStarted` is recorded, nothing was undone yet.
    UndoStarted,
    /// `undo` came back, nothing was recorded yet.
    UndoneApplied,
    /// `Undone` is recorded.
    Undone,
}

impl CrashPoint {
    /// The three points on the way forward.
    pub const FORWARD: [Self; 3] = [Self::Started, Self::Applied, Self::Succeeded];
    /// The three points on the way back.
    pub const BACKWARD: [Self; 3] = [Self::UndoStarted, Self::UndoneApplied, Self::Undone];

    /// The name used in `PGTEAL_CRASH`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Applied => "applied",
            Self::Succeeded => "succeeded",
            Self::UndoStarted => "undo-started",
            Self::UndoneApplied => "undone-applied",
            Self::Undone => "undone",
        }
    }
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a hook wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Go on.
    Live,
    /// End at once as a killed process would: no further call, no further record.
    Die,
}

/// Is told when the driver passes a crash point.
pub trait Hooks: Send + Sync {
    /// The driver of a run of `kind` is at `point` of `step`.
    fn reached(&self, kind: &str, step: &str, point: CrashPoint) -> Fate;
}

/// Never kills.
#[derive(Debug, Clone, Copy)]
pub struct NoHooks;

impl Hooks for NoHooks {
    fn reached(&self, _kind: &str, _step: &str, _point: CrashPoint) -> Fate {
        Fate::Live
    }
}

/// One moment: `<kind>/<step>/<point>`, such as `switch/fence/applied`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashAt {
    /// The kind of run.
    pub kind: String,
    /// The step.
    pub step: String,
    /// The moment.
    pub point: CrashPoint,
}

/// A text that names no crash point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not <kind>/<step>/<started|applied|succeeded|undo-started|undone-applied|undone>")]
pub struct BadCrashPoint(String);

impl FromStr for CrashAt {
    type Err = BadCrashPoint;

    fn from_str(text: &str) -> Result<Self, BadCrashPoint> {
        let bad = || BadCrashPoint(text.to_owned());
        let mut parts = text.split('/');
        let (Some(kind), Some(step), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let points = CrashPoint::FORWARD.into_iter().chain(CrashPoint::BACKWARD);
        let point = points.into_iter().find(|point| point.name() == name).ok_or_else(bad)?;
        Ok(Self { kind: kind.to_owned(), step: step.to_owned(), point })
    }
}

/// The hook of the real program: aborts the process where `PGTEAL_CRASH` says so.
#[derive(Debug, Clone)]
pub struct AbortAt(Option<CrashAt>);

impl AbortAt {
    /// The variable that is read.
    pub const VARIABLE: &'static str = "PGTEAL_CRASH";

    /// Reads the variable once.
    ///
    /// # Errors
    /// [`BadCrashPoint`] if it is set and names no crash point.
    pub fn from_env() -> Result<Self, BadCrashPoint> {
        match std::env::var(Self::VARIABLE) {
            Ok(text) if !text.is_empty() => Ok(Self(Some(text.parse()?))),
            _ => Ok(Self(None)),
        }
    }
}

impl Hooks for AbortAt {
    fn reached(&self, kind: &str, step: &str, point: CrashPoint) -> Fate {
        if self.0.as_ref().is_some_and(|at| at.kind == kind && at.step == step && at.point == point) {
            std::process::abort();
        }
        Fate::Live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crash_points_are_spelled_one_way() {
        let at = CrashAt { kind: "switch".into(), step: "fence".into(), point: CrashPoint::UndoneApplied };
        assert_eq!("switch/fence/undone-applied".parse(), Ok(at));
        for text in ["", "switch/fence", "switch/fence/later", "switch/fence/applied/x"] {
            assert!(text.parse::<CrashAt>().is_err(), "{text:?}");
        }
    }
}
