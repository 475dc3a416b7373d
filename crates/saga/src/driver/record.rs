//! Writing down: the transition table first, then the journal, then the stream. Refuses to write what the table does
//! not allow.
//!
//! The success of a step inside the section, but for its last, is not written by itself but with the next record: clients
//! wait for every write there. Until then the state and the stream have it, and the journal has not. Lost with the
//! process it is as harmless as lost with the machine: the step has started there and no later one has, so that a
//! resume looks at it again, and sees that it is done.

use crate::clock::Clock;
use crate::driver::{Driver, DriverError};
use crate::event::{Event, EventBody};
use crate::ids::Epoch;
use crate::journal::Durability;
use crate::step::StepKind;

/// The event after event `last`, now.
pub(super) fn event(clock: &Clock, last: u64, epoch: Epoch, body: EventBody) -> Event {
    Event { seq: last + 1, epoch, at: clock.now(), mono_ns: clock.mono_ns(), body }
}

impl<W: Send + Sync + 'static> Driver<W> {
    pub(super) async fn record(
        &mut self,
        body: EventBody,
        durability: Durability,
    ) -> Result<(), DriverError> {
        self.record_all(vec![body], durability).await
    }

    pub(super) async fn record_all(
        &mut self,
        bodies: Vec<EventBody>,
        durability: Durability,
    ) -> Result<(), DriverError> {
        let mut next = self.state.clone();
        let mut events = self.held_back.clone();
        for body in bodies {
            let event = event(&self.setup.clock, next.seq(), self.epoch, body);
            next.apply(&event).map_err(|source| DriverError::Illegal { run: self.run.clone(), source })?;
            events.push(event);
        }
        self.append(&events, durability, next.is_passed()).await?;
        let told = std::mem::take(&mut self.held_back).len();
        self.state = next;
        for event in &events[told..] {
            self.setup.observer.event(&self.run, event);
        }
        Ok(())
    }

    /// Takes an event in that is written with the next record.
    pub(super) fn hold_back(&mut self, body: EventBody) -> Result<(), DriverError> {
        let event = event(&self.setup.clock, self.state.seq(), self.epoch, body);
        let illegal = |source| DriverError::Illegal { run: self.run.clone(), source };
        self.state.apply(&event).map_err(illegal)?;
        self.setup.observer.event(&self.run, &event);
        self.held_back.push(event);
        Ok(())
    }

    /// Writes what was held back, if anything was.
    pub(super) async fn write_held_back(&mut self) -> Result<(), DriverError> {
        if !self.held_back.is_empty() {
            let events = self.held_back.clone();
            self.append(&events, Durability::Deferred, self.state.is_passed()).await?;
            self.held_back.clear();
        }
        Ok(())
    }

    /// Appends `events`, of which the first are those held back. All or none is written; where the point of no return is
    /// passed by them and nobody can say which, it is in doubt.
    async fn append(
        &mut self,
        events: &[Event],
        durability: Durability,
        passes: bool,
    ) -> Result<(), DriverError> {
        let written = self.state.seq() - self.held_back.len() as u64;
        let appended = self.setup.journal.append(&self.run, self.epoch, written, events, durability).await;
        if let Err(error) = appended {
            self.point_in_doubt = passes;
            return Err(error.into());
        }
        Ok(())
    }

    /// Whether the success of the step at `index` waits for the next record.
    pub(super) fn is_success_held_back(&self, index: usize) -> bool {
        self.state.plan().section_span().is_some_and(|(first, last)| first <= index && index < last)
    }

    /// How durable the success of the step at `index` must be. Inside the section it never waits for the disk: lost with
    /// the machine, the durable `Started` before it makes a resume look again, and see that it is done.
    pub(super) fn durability_of_success(&self, index: usize) -> Durability {
        if self.state.plan().is_in_section(index) { Durability::Deferred } else { self.durability(index) }
    }

    /// How durable the other records of the step at `index` must be: deferred only where the step says so and losing them
    /// with the machine is harmless, which is inside the section, behind its first step, before the point of no return.
    pub(super) fn durability(&self, index: usize) -> Durability {
        let plan = self.state.plan();
        let inside = plan.section_span().is_some_and(|(first, last)| first < index && index <= last);
        let is_point = plan.steps()[index].kind == StepKind::PointOfNoReturn;
        match self.setup.registry.get(&plan.steps()[index].id) {
            Some(step) if inside && !is_point => step.durability(),
            _ => Durability::Sync,
        }
    }
}
