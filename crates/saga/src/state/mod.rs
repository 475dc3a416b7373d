//! Where a run stands, folded from its events by one transition table, live and at recovery alike.
//! Refuses to decide what comes next ([`crate::decide`]); an event that cannot follow is an error.

mod phase;
mod table;

use std::sync::Arc;

use jiff::Timestamp;

use crate::event::{Event, EventBody};
use crate::ids::Epoch;
use crate::plan::Plan;

pub use phase::{Cause, Mark, Phase, Rest, Trouble};
pub use table::IllegalEvent;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub(crate) plan: Arc<Plan>,
    pub(crate) seq: u64,
    pub(crate) epoch: Epoch,
    pub(crate) created_at: Timestamp,
    pub(crate) last_at: Timestamp,
    pub(crate) marks: Vec<Mark>,
    pub(crate) phase: Phase,
    pub(crate) rest: Option<Rest>,
    pub(crate) trouble: Option<Trouble>,
    pub(crate) gate_open: bool,
    pub(crate) section_since: Option<Timestamp>,
    pub(crate) doubt: bool,
    pub(crate) suspect: bool,
}

/// Where a run with these events stands.
///
/// # Errors
/// [`IllegalEvent`]: the first event that cannot follow those before it.
pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<State, IllegalEvent> {
    let mut events = events.into_iter();
    let mut state = State::begin(events.next().ok_or(IllegalEvent::Empty)?)?;
    for event in events {
        state.apply(event)?;
    }
    Ok(state)
}

impl State {
    /// The state after the first event.
    ///
    /// # Errors
    /// [`IllegalEvent`] unless it is number 1 and `RunCreated`.
    pub fn begin(first: &Event) -> Result<Self, IllegalEvent> {
        if first.seq != 1 {
            return Err(IllegalEvent::Seq { last: 0, found: first.seq });
        }
        let EventBody::RunCreated { plan } = &first.body else {
            return Err(IllegalEvent::Transition {
                seq: first.seq,
                event: first.body.name(),
                step: first.body.step().map(str::to_owned),
                found: "not created".into(),
            });
        };
        Ok(Self {
            plan: Arc::new(plan.clone()),
            seq: 1,
            epoch: first.epoch,
            created_at: first.at,
            last_at: first.at,
            marks: vec![Mark::Pending; plan.steps().len()],
            phase: Phase::Forward,
            rest: None,
            trouble: None,
            gate_open: false,
            section_since: None,
            doubt: false,
            suspect: false,
        })
    }

    /// Takes one more event in.
    ///
    /// # Errors
    /// [`IllegalEvent`] if it cannot follow; then the state is as it was.
    pub fn apply(&mut self, event: &Event) -> Result<(), IllegalEvent> {
        if event.seq != self.seq + 1 {
            return Err(IllegalEvent::Seq { last: self.seq, found: event.seq });
        }
        let may_rise = matches!(event.body, EventBody::Resumed { .. });
        if event.epoch < self.epoch || (event.epoch > self.epoch && !may_rise) {
            return Err(IllegalEvent::Epoch {
                seq: event.seq,
                event: event.body.name(),
                last: self.epoch,
                found: event.epoch,
            });
        }
        let place = match event.body.step() {
            Some(step) => Some(
                self.plan
                    .index_of(step)
                    .ok_or_else(|| IllegalEvent::Step { seq: event.seq, step: step.to_owned() })?,
            ),
            None => None,
        };
        self.transition(event, place).ok_or_else(|| IllegalEvent::Transition {
            seq: event.seq,
            event: event.body.name(),
            step: event.body.step().map(str::to_owned),
            found: self.describe(),
        })?;
        (self.seq, self.epoch, self.last_at) = (event.seq, event.epoch, event.at);
        Ok(())
    }

    /// Whether the step's effect may be in the world. Inside the section `Started` need not reach the disk before the
    /// effect: after a resume there, a step that looks as if it never began may have begun before the machine died.
    pub(crate) fn is_to_undo(&self, index: usize) -> bool {
        match self.marks[index] {
            Mark::Running | Mark::Succeeded | Mark::Undoing => true,
            Mark::Pending => {
                self.suspect && self.plan.is_in_section(index) && !self.plan.steps()[index].kind.is_forward()
            }
            Mark::Undone => false,
        }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The number of the last event.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The epoch of the last event.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// When the run was created.
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// When the last event happened.
    pub fn last_at(&self) -> Timestamp {
        self.last_at
    }

    /// Where each step of the plan stands.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Which way the run goes.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Why it does not move, if it rests.
    pub fn rest(&self) -> Option<&Rest> {
        self.rest.as_ref()
    }

    /// The failed tries of the step it is at.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Tries of the step it is at that failed since the last resume.
    pub fn attempts(&self) -> u32 {
        self.trouble.as_ref().map_or(0, |trouble| trouble.attempts)
    }

    /// The place of the step the run is at: the next to do, or the next to undo.
    pub fn cursor(&self) -> Option<usize> {
        match self.phase {
            Phase::Forward => self.marks.iter().position(|mark| *mark != Mark::Succeeded),
            Phase::Unwinding(_) => (0..self.marks.len()).rev().find(|&index| self.is_to_undo(index)),
            Phase::Done | Phase::Unwound(_) => None,
        }
    }

    /// The id of the step the run is at.
    pub fn current_step(&self) -> Option<&str> {
        self.cursor().map(|index| self.plan.steps()[index].id.as_str())
    }

    /// Whether the point of no return has started: the run only goes forward.
    pub fn is_passed(&self) -> bool {
        let begun = |(index, step): (usize, &crate::plan::PlanStep)| {
            step.kind.is_forward() && self.marks[index] != Mark::Pending
        };
        self.plan.steps().iter().enumerate().any(begun)
    }

    /// Whether the run is over; a run that is Done may still be undone.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Done | Phase::Unwound(_))
    }

    /// Whether `undo` may be asked for.
    pub fn may_undo(&self) -> bool {
        matches!(self.phase, Phase::Forward | Phase::Done) && !self.is_passed()
    }

    /// Whether the section has begun and its effects are there: the run must not rest now.
    pub fn is_section_open(&self) -> bool {
        let Some((first, last)) = self.plan.section_span() else { return false };
        match self.phase {
            Phase::Forward => self.marks[first] != Mark::Pending && self.marks[last] != Mark::Succeeded,
            Phase::Unwinding(_) => (first..=last).any(|index| self.is_to_undo(index)),
            Phase::Done | Phase::Unwound(_) => false,
        }
    }

    /// Whether the section's bound is running: it is open and the point of no return has not started.
    pub fn is_bounded(&self) -> bool {
        self.phase == Phase::Forward && self.is_section_open() && !self.is_passed()
    }

    /// When the section began, while its bound is running.
    pub fn bounded_since(&self) -> Option<Timestamp> {
        self.section_since.filter(|_| self.is_bounded())
    }

    /// When the section's bound passes, while it is running.
    pub fn deadline(&self) -> Option<Timestamp> {
        let section = self.plan.section()?;
        let since = self.bounded_since()?;
        let bound = jiff::SignedDuration::from_millis(i64::try_from(section.bound_ms).unwrap_or(i64::MAX));
        Some(since.saturating_add(bound).unwrap_or(Timestamp::MAX))
    }

    /// Where the run stands, in a few words.
    pub fn describe(&self) -> String {
        let at = self.current_step().map(|step| format!(" at {step}")).unwrap_or_default();
        let way = match &self.phase {
            Phase::Forward => "going forward",
            Phase::Unwinding(_) => "unwinding",
            Phase::Done => "done",
            Phase::Unwound(_) => "unwound",
        };
        match &self.rest {
            Some(Rest::Stuck { .. }) => format!("stuck{at}, {way}"),
            Some(Rest::Waiting { .. }) => format!("waiting{at}"),
            Some(Rest::Stopped) => format!("stopped{at}, {way}"),
            None => format!("{way}{at}"),
        }
    }
}
