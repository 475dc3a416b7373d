//! The way forward: guard, start, try, and what is recorded of it.
//! Refuses to choose the step.

use std::sync::OnceLock;

use crate::cx::{Cx, Noted};
use crate::driver::attempt::{self, Verdict};
use crate::driver::{Driver, DriverError};
use crate::event::EventBody;
use crate::fault::{Class, Failure, StepError};
use crate::hooks::CrashPoint;
use crate::journal::Durability;
use crate::state::Mark;
use crate::step::StepKind;

/// What the guard of a step said, and what was seen of it, after the step before it was applied.
pub(super) struct Ahead {
    index: usize,
    cx: Cx,
    entered: Result<Verdict, StepError>,
}

impl<W: Send + Sync + 'static> Driver<W> {
    pub(super) async fn begin(&mut self, index: usize) -> Result<(), DriverError> {
        let step = self.step(index)?;
        // What is seen now is as good as seen after `Started`: the step's object is changed by the driver that holds the
        // lease alone, and that is busy here. Who was overtaken learns it from the append of `Started`, before any effect.
        let (cx, entered) = match self.ahead.take() {
            Some(ahead) if ahead.index == index => (ahead.cx, ahead.entered),
            _ => {
                let cx = self.cx(index);
                let enters = attempt::enter(&*step, &self.setup.world, &cx);
                let Some(entered) = self.interruptible(self.state.is_bounded(), enters).await else {
                    return Ok(());
                };
                (cx, entered)
            }
        };
        let seen = match entered {
            Err(error) => return self.fail(index, error).await,
            Ok(seen) => seen,
        };
        self.guarded = Some(index);
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
            seen => seen,
        };
        let body = EventBody::Started { step: self.id(index) };
        self.record(body, self.durability(index)).await?;
        self.reached(index, CrashPoint::Started)?;
        self.try_once(index, Some(seen), cx.facts).await
    }

    /// Tries a started step again. While the section can still be undone its guard is asked again too: what it watches
    /// over may have been lost since, and trying on would keep clients waiting for nothing. A step that another process
    /// began is not guarded anew: it stands in the section, and the guards of what comes next will tell.
    pub(super) async fn pursue(&mut self, index: usize) -> Result<(), DriverError> {
        if !self.state.is_bounded() || self.guarded != Some(index) {
            return self.try_once(index, None, Noted::default()).await;
        }
        let (step, cx) = (self.step(index)?, self.cx(index));
        match self.interruptible(true, attempt::enter(&*step, &self.setup.world, &cx)).await {
            None => Ok(()),
            Some(Err(error)) => self.fail(index, error).await,
            Some(Ok(seen)) => self.try_once(index, Some(seen), cx.facts).await,
        }
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
        let may_stop = self.state.is_bounded();
        // What could not be seen is looked at anew, now that the step has started.
        let seen = seen.filter(|seen| !matches!(seen, Verdict::Failed(_)));
        let applies = attempt::apply(&*step, &self.setup.world, &cx, seen);
        match self.interruptible(may_stop, applies).await {
            None => return Ok(()),
            Some(Some(verdict)) => return self.conclude(index, verdict, cx, None).await,
            Some(None) => self.reached(index, CrashPoint::Applied)?,
        }
        let (verdict, mut ahead) = (OnceLock::new(), None);
        let looks = async {
            let found = attempt::look(&*step, &self.setup.world, &cx).await;
            let is_done = matches!(found, Verdict::Done);
            let _ = verdict.set(found);
            // What was seen ahead of anything else does not count, and is not waited for.
            if is_done { Ok(()) } else { Err(()) }
        };
        let looks_ahead = async {
            ahead = self.look_ahead(index).await;
            Ok(())
        };
        self.interruptible(may_stop, async { tokio::try_join!(looks, looks_ahead) }).await;
        match verdict.into_inner() {
            None => Ok(()),
            Some(verdict) => self.conclude(index, verdict, cx, ahead).await,
        }
    }

    /// Records what a try came to.
    async fn conclude(
        &mut self,
        index: usize,
        verdict: Verdict,
        cx: Cx,
        ahead: Option<Ahead>,
    ) -> Result<(), DriverError> {
        let step = self.step(index)?;
        match verdict {
            Verdict::Done => {
                self.ahead = ahead;
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
        }
    }

    /// Enters the step behind `index` while that one is looked at: in the section clients wait for every look. Where it is
    /// not seen to be done, nothing of this counts. The point of no return is not entered ahead: its guard is the last
    /// word.
    async fn look_ahead(&self, index: usize) -> Option<Ahead> {
        if !self.is_success_held_back(index) {
            return None;
        }
        let index = index + 1;
        let (step, cx) = (self.step(index).ok()?, Cx { attempt: 1, ..self.cx(index) });
        if step.kind() == StepKind::PointOfNoReturn {
            return None;
        }
        let entered = attempt::enter(&*step, &self.setup.world, &cx).await;
        Some(Ahead { index, cx, entered })
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
            StepError::Refused(failure) if self.must_get_through(&failure) => Some((Class::Unknown, failure)),
            StepError::Refused(failure) => Some((Class::Refused, failure)),
            StepError::Unknown(failure) => Some((Class::Unknown, failure)),
            StepError::Stopped if self.setup.stop.is_requested() => None,
            StepError::Stopped => {
                Some((Class::Unknown, Failure::new(self.id(index), "it stopped, but nobody wanted it to")))
            }
        }
    }

    /// Whether a refusal is tried again like an unknown: past the point of no return nothing can unwind, and inside the
    /// section a rest would leave clients held before a side that refuses them.
    fn must_get_through(&self, failure: &Failure) -> bool {
        self.state.is_passed() && self.state.is_section_open() && !failure.is_stale()
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
                Verdict::NotDone => Failure::new(self.id(index), "it was done, and no longer is"),
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
