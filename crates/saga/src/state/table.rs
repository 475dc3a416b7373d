//! The transition table: which event may follow, and what it changes. The same code live and at recovery.
//! Refuses to look outside the journal.

use jiff::Timestamp;

use crate::event::{Doing, End, Event, EventBody};
use crate::fault::{Class, Failure};
use crate::ids::Epoch;
use crate::state::{Cause, Mark, Phase, Rest, State, Trouble};
use crate::step::StepKind;

/// An event that cannot follow what came before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IllegalEvent {
    /// No events.
    #[error("a run begins with run-created, but it has no events")]
    Empty,
    /// The number does not follow.
    #[error("event {found} cannot follow event {last}")]
    Seq {
        /// The last event's number.
        last: u64,
        /// This event's number.
        found: u64,
    },
    /// The epoch falls, or rises other than by a resume.
    #[error("event {seq} ({event}) cannot carry epoch {found} after epoch {last}")]
    Epoch {
        /// The event.
        seq: u64,
        /// Its name.
        event: &'static str,
        /// The epoch before.
        last: Epoch,
        /// Its epoch.
        found: Epoch,
    },
    /// It is about a step that is not in the plan.
    #[error("event {seq} is about step {step}, which is not in the plan")]
    Step {
        /// The event.
        seq: u64,
        /// The step.
        step: String,
    },
    /// The transition table has no such entry.
    #[error("event {seq} ({event}{}) cannot happen while the run is {found}", .step.as_deref().map(|s| format!(" {s}")).unwrap_or_default())]
    Transition {
        /// The event.
        seq: u64,
        /// Its name.
        event: &'static str,
        /// Its step.
        step: Option<String>,
        /// Where the run stood.
        found: String,
    },
}

impl State {
    /// The transition table. `None` where it has no entry; nothing is changed then.
    pub(super) fn transition(&mut self, event: &Event, place: Option<usize>) -> Option<()> {
        use EventBody as E;
        use Phase as P;
        let at = event.at;
        let here = place.is_some() && place == self.cursor();
        let i = place.unwrap_or(0);
        let mark = self.marks.get(i).copied()?;
        if self.rest.is_some() && !matches!(event.body, E::Resumed { .. }) {
            return None;
        }
        match (&self.phase, &event.body) {
            (P::Forward | P::Unwinding(_) | P::Done, E::Resumed { .. }) => self.resume(),

            (P::Forward, E::Confirmed) if self.doubt => self.doubt = false,
            (P::Forward, E::Started { .. }) if here && mark == Mark::Pending => self.start(i, at),
            (P::Forward, E::Succeeded { .. }) if here && mark == Mark::Running => {
                self.mark(i, Mark::Succeeded);
            }
            (P::Forward, E::Failed { step, class: Class::Refused, failure, .. })
                if here && !self.is_passed() && !failure.is_stale() =>
            {
                self.unwind(Cause::Refused { step: step.clone(), failure: failure.clone() });
            }
            (P::Forward, E::Failed { class, failure, attempt, .. })
                if here && *attempt == self.attempts() + 1 =>
            {
                self.fail(*class, failure, at);
            }
            (P::Forward, E::Lost { step, failure })
                if self.is_bounded() && mark == Mark::Succeeded && self.plan.is_in_section(i) =>
            {
                self.unwind(Cause::Lost { step: step.clone(), failure: failure.clone() });
            }
            (P::Forward, E::Deadline { step, elapsed_ms }) if here && self.is_bounded() => {
                let last = self.trouble.as_ref().map(|trouble| trouble.failure.clone());
                self.unwind(Cause::Deadline { step: step.clone(), elapsed_ms: *elapsed_ms, last });
            }
            (P::Forward, E::GateWaiting { step, what }) if here && self.is_at_gate(i) => {
                self.rest = Some(Rest::Waiting { step: step.clone(), what: what.clone() });
            }
            (P::Forward, E::GateOpened { .. }) if here && self.is_at_gate(i) => self.gate_open = true,
            (P::Forward, E::UndoRequested { by }) if !self.is_passed() => {
                self.unwind(Cause::Operator { by: by.clone() });
            }
            (P::Done, E::UndoRequested { by }) if !self.is_passed() => {
                self.unwind(Cause::Operator { by: by.clone() });
            }
            (P::Forward, E::Finished { end: End::Done }) if self.cursor().is_none() => self.phase = P::Done,

            (P::Unwinding(_), E::UndoStarted { .. }) if here && mark != Mark::Undoing => {
                self.mark(i, Mark::Undoing);
            }
            (P::Unwinding(_), E::Undone { .. }) if here && mark == Mark::Undoing => {
                self.mark(i, Mark::Undone);
            }
            (P::Unwinding(_), E::UndoFailed { class, failure, attempt, .. })
                if here && mark == Mark::Undoing && *attempt == self.attempts() + 1 =>
            {
                self.fail(*class, failure, at);
            }
            (P::Unwinding(cause), E::Finished { end: End::Unwound }) if self.cursor().is_none() => {
                self.phase = P::Unwound(cause.clone());
            }

            (P::Forward | P::Unwinding(_), E::Stuck { step, doing, failure })
                if here && self.trouble.is_some() && *doing == self.doing() =>
            {
                self.rest = Some(Rest::Stuck { step: step.clone(), doing: *doing, failure: failure.clone() });
            }
            (P::Forward | P::Unwinding(_), E::Stopped) => self.rest = Some(Rest::Stopped),
            _ => return None,
        }
        Some(())
    }

    fn resume(&mut self) {
        self.rest = None;
        self.trouble = None;
        // Whoever drove it before may have been away for long: what the section holds may have let go by itself.
        self.doubt = self.is_bounded();
        self.suspect |= self.doubt;
    }

    fn start(&mut self, index: usize, at: Timestamp) {
        if self.plan.section_span().is_some_and(|(first, _)| first == index) {
            self.section_since = Some(at);
        }
        self.mark(index, Mark::Running);
    }

    fn mark(&mut self, index: usize, mark: Mark) {
        self.marks[index] = mark;
        self.trouble = None;
        self.gate_open = false;
    }

    fn fail(&mut self, class: Class, failure: &Failure, at: Timestamp) {
        let (attempts, since) = self.trouble.as_ref().map_or((0, at), |t| (t.attempts, t.since));
        self.trouble =
            Some(Trouble { attempts: attempts + 1, since, last_at: at, class, failure: failure.clone() });
    }

    fn unwind(&mut self, cause: Cause) {
        self.phase = Phase::Unwinding(cause);
        self.trouble = None;
        self.gate_open = false;
        self.doubt = false;
    }

    fn is_at_gate(&self, index: usize) -> bool {
        self.plan.steps()[index].kind == StepKind::Gate && self.marks[index] == Mark::Running
    }

    fn doing(&self) -> Doing {
        if matches!(self.phase, Phase::Unwinding(_)) { Doing::Undo } else { Doing::Apply }
    }
}
