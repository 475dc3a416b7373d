//! Writing down: the transition table first, then the journal, then the stream.
//! Refuses to write what the table does not allow.

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
        let mut events = Vec::with_capacity(bodies.len());
        for body in bodies {
            let event = event(&self.setup.clock, next.seq(), self.epoch, body);
            next.apply(&event).map_err(|source| DriverError::Illegal { run: self.run.clone(), source })?;
            events.push(event);
        }
        let journal = &self.setup.journal;
        let appended = journal.append(&self.run, self.epoch, self.state.seq(), &events, durability).await;
        if let Err(error) = appended {
            self.point_in_doubt = next.is_passed();
            return Err(error.into());
        }
        self.state = next;
        for event in &events {
            self.setup.observer.event(&self.run, event);
        }
        Ok(())
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
