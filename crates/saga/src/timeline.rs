//! How long each step took, read from the journal.
//! Refuses to round.

use jiff::Timestamp;

use crate::event::{Doing, Event, EventBody};

/// One try of one step, from its start to what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lap {
    /// The step.
    pub step: String,
    /// Forward or back.
    pub doing: Doing,
    /// When it began.
    pub began: Timestamp,
    /// When it ended; `None` if nothing was recorded.
    pub ended: Option<Timestamp>,
    /// Whether it ended in success.
    pub ok: bool,
}

impl Lap {
    /// Its length in microseconds. Within one process it is measured by the monotonic clock.
    pub fn micros(&self) -> Option<i64> {
        self.ended.map(|ended| ended.as_microsecond() - self.began.as_microsecond())
    }
}

/// The laps of a run, in the order in which they began.
pub fn timeline(events: &[Event]) -> Vec<Lap> {
    let mut laps: Vec<Lap> = Vec::new();
    for event in events {
        let at = event.at;
        let (step, doing, ok) = match &event.body {
            EventBody::Started { step } | EventBody::UndoStarted { step } => {
                let undo = matches!(event.body, EventBody::UndoStarted { .. });
                let doing = if undo { Doing::Undo } else { Doing::Apply };
                laps.push(Lap { step: step.clone(), doing, began: at, ended: None, ok: false });
                continue;
            }
            EventBody::Succeeded { step, .. } => (step, Doing::Apply, true),
            EventBody::Failed { step, .. } => (step, Doing::Apply, false),
            EventBody::Undone { step } => (step, Doing::Undo, true),
            EventBody::UndoFailed { step, .. } => (step, Doing::Undo, false),
            _ => continue,
        };
        let open = laps.iter_mut().rev().find(|lap| lap.step == *step && lap.doing == doing && !lap.ok);
        if let Some(lap) = open {
            (lap.ended, lap.ok) = (Some(at), ok);
        }
    }
    laps
}
