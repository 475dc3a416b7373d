//! The way forward: guard, start, try, and what is recorded of it.
//! Refuses to choose the step.

use crate::cx::{Cx, Noted};
use crate::driver::attempt::{self, Verdict};
use crate::driver::{Driver, DriverError};
use crate::event::EventBody;
use crate::fault::{Class, Failure, StepError};
use crate::hooks::{CrashPoint, Fate};
use crate::journal::Durability;
use crate::state::Mark;
use crate::step::StepKind;

impl<W: Send + Sync + 'static> Driver<W> {
    pub(super) async fn begin(&mut self, index: usize) -> Result<(), DriverError> {
        let (step, cx) = (self.step(index)?, self.cx(index));
        // Both only look, so they look at the same time; a guard that refuses ends the other's look. What is seen now is
        // as good as seen after `Started`: the step's object is changed by the driver that holds the lease alone, and that
        // is busy here. Who was overtaken learns it from the append of `Started`, before any effect.
        let world = &*self.setup.world;
        let looked = async { Ok(attempt::look(&*step, world, &cx).await) };
        let both = async { tokio::try_join!(step.guard(world, &cx), looked) };
        let seen = match self.interruptible(self.state.is_bounded(), both).await {
            None => return Ok(()),
            Some(Err(error)) => return self.fail(index, error).await,
            Some(Ok(((), seen))) => seen,
        };
        // That took time: past the deadline the point of no return must not be passed.
        let is_late = self.state.deadline().is_some_and(|deadline| self.setup.clock.now() >= deadline);
        if is_late || (self.setup.stop.is_requested() && self.state.is_bounded()) {
            return Ok(());
        }
        let seen = match seen {
            // Whoever cannot see where the point leads to does not pass it.
            Verdict::Failed(error) if step.kind() == StepKind::PointOfNoReturn => {
                return self.fail(index, error).await;
            }
            // As for a step that is taken up again: it has started, and is looked at anew.
            Verdict::Failed(_) => None,
            seen => Some(seen),
        };
        let body = EventBody::Started { step: self.id(index) };
        self.record(body, self.durability(index)).await?;
        self.reached(index, CrashPoint::Started)?;
        self.try_once(index, seen, cx.facts).await
    }

    pub(super) async fn pursue(&mut self, index: usize) -> Result<(), DriverError> {
        self.try_once(index, None, Noted::default()).await
    }

    /// Tries a started step, from what was `seen` of it and `noted` by it before it had started.
    async fn try_once(
        &mut self,
        index: usize,
        seen: Option<Verdict>,
        noted: Noted,
    ) -> Result<(), DriverError> {
        let step = self.step(index)?;
        let cx = Cx { facts: noted, ..self.cx(index) };
        let (hooks, kind) = (&self.setup.hooks, self.state.plan().kind());
        let applied = || hooks.reached(kind, step.id(), CrashPoint::Applied) == Fate::Die;
        let tried = attempt::forward(&*step, &self.setup.world, &cx, seen, applied);
        let Some(verdict) = self.interruptible(self.state.is_bounded(), tried).await else {
            return Ok(());
        };
        match verdict {
            Verdict::Done => {
                let body = EventBody::Succeeded { step: self.id(index), facts: cx.take_facts() };
                self.succeed(index, body).await
            }
            Verdict::NotDone if step.kind() == StepKind::Gate => self.wait_at_gate(index, step.title()).await,
            Verdict::NotDone => {
                let error =
                    StepError::unknown(self.id(index), "it was applied, but it is not seen to be done")
                        .with_code("not-observed");
                self.fail(index, error).await
            }
            Verdict::Failed(error) => self.fail(index, error).await,
            Verdict::Died => Err(DriverError::Died { step: self.id(index), point: CrashPoint::Applied }),
        }
    }

    pub(super) async fn succeed(&mut self, index: usize, body: EventBody) -> Result<(), DriverError> {
        if self.is_success_held_back(index) {
            self.hold_back(body)?;
        } else {
            self.record(body, self.durability_of_success(index)).await?;
        }
        self.reached(index, CrashPoint::Succeeded)
    }

    async fn wait_at_gate(&mut self, index: usize, what: &str) -> Result<(), DriverError> {
        if self.setup.stop.is_requested() {
            return Ok(());
        }
        let body = EventBody::GateWaiting { step: self.id(index), what: what.to_owned() };
        self.record(body, Durability::Sync).await
    }

    async fn fail(&mut self, index: usize, error: StepError) -> Result<(), DriverError> {
        let Some((class, failure)) = self.classify(index, error) else { return Ok(()) };
        let attempt = self.state.attempts() + 1;
        let body = EventBody::Failed { step: self.id(index), class, failure, attempt };
        self.record(body, self.durability(index)).await
    }

    /// The failure to record; `None` for a step that came to rest because the operator wants to stop.
    pub(super) fn classify(&self, index: usize, error: StepError) -> Option<(Class, Failure)> {
        match error {
            StepError::Refused(failure) => Some((Class::Refused, failure)),
            StepError::Unknown(failure) => Some((Class::Unknown, failure)),
            StepError::Stopped if self.setup.stop.is_requested() => None,
            StepError::Stopped => {
                Some((Class::Unknown, Failure::new(self.id(index), "it stopped, but nobody wanted it to")))
            }
        }
    }

    /// Looks whether the steps of the open section that had succeeded are still in effect, and records the answer.
    pub(super) async fn confirm(&mut self) -> Result<(), DriverError> {
        let Some((first, last)) = self.state.plan().section_span() else { return Ok(()) };
        for index in first..=last {
            if self.state.marks()[index] != Mark::Succeeded {
                continue;
            }
            let (step, cx) = (self.step(index)?, self.cx(index));
            let looked = attempt::look(&*step, &self.setup.world, &cx);
            let Some(verdict) = self.interruptible(true, looked).await else { return Ok(()) };
            let failure = match verdict {
                Verdict::Done => continue,
                Verdict::NotDone | Verdict::Died => {
                    Failure::new(self.id(index), "it was done, and no longer is")
                }
                // Not knowing whether clients are still held and blue still fenced is as good as neither.
                Verdict::Failed(error) => match self.classify(index, error) {
                    Some((_, failure)) => failure,
                    None => return Ok(()),
                },
            };
            let body = EventBody::Lost { step: self.id(index), failure };
            return self.record(body, Durability::Deferred).await;
        }
        self.record(EventBody::Confirmed, Durability::Deferred).await
    }

    /// A context for a step that is undone without a record.
    pub(super) fn bare_cx(&self, index: usize) -> Cx {
        let mut cx = self.cx(index);
        (cx.deadline, cx.stop) = (None, crate::stop::Stop::never());
        cx
    }
}
