//! A step that misbehaves on demand around the real one.
//! Refuses to know what the real one does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;

use crate::cx::Cx;
use crate::fault::{STALE_EPOCH, StepError};
use crate::journal::Durability;
use crate::registry::Registry;
use crate::step::{Observation, Step, StepKind};

/// Long enough for another call of the same step to get its turn.
const MOMENT: Duration = Duration::from_millis(5);

/// How a step misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misbehaviour {
    /// None: `apply` is counted.
    Count,
    ApplyTwice,
    UndoTwice,
    RefuseGuard,
    RefuseGuardDone,
    HangGuard,
    DoneEarly,
    RefuseBefore,
    RefuseAfter,
    RefuseOnce,
    RefuseStale,
    Foreign,
    Unknown,
    UnknownOnce,
    Lie,
    CutShort(u8),
    CutThenRefuse(u8),
    Hang,
    UndoUnknown,
    UndoLie,
}

/// One misbehaviour of one step or of all; can be switched off.
#[derive(Debug)]
pub(super) struct Switch {
    what: Misbehaviour,
    step: Option<String>,
    armed: AtomicBool,
    hits: AtomicU32,
}

impl Switch {
    pub(super) fn new(what: Misbehaviour, step: Option<String>) -> Arc<Self> {
        Arc::new(Self { what, step, armed: AtomicBool::new(true), hits: AtomicU32::new(0) })
    }

    pub(super) fn off(&self) {
        self.armed.store(false, Ordering::SeqCst);
    }

    pub(super) fn was_hit(&self) -> bool {
        self.hits() > 0
    }

    pub(super) fn hits(&self) -> u32 {
        self.hits.load(Ordering::SeqCst)
    }

    fn hit(&self) {
        self.hits.fetch_add(1, Ordering::SeqCst);
    }

    fn is_on(&self, what: Misbehaviour, step: &str) -> bool {
        let meant = self.step.as_deref().is_none_or(|id| id == step);
        self.what == what && meant && self.armed.load(Ordering::SeqCst)
    }
}

/// `registry` with misbehaving steps.
pub(super) fn misbehaving<W: Send + Sync + 'static>(
    registry: &Registry<W>,
    switches: &[Arc<Switch>],
) -> Result<Arc<Registry<W>>, String> {
    let wrap = |inner: &Arc<dyn Step<W>>| -> Arc<dyn Step<W>> {
        Arc::new(Faulty { inner: Arc::clone(inner), switches: switches.to_vec() })
    };
    let steps = registry.steps().iter().map(wrap).collect();
    Registry::new(registry.kind(), steps).map(Arc::new).map_err(|error| error.to_string())
}

struct Faulty<W: Send + Sync + 'static> {
    inner: Arc<dyn Step<W>>,
    switches: Vec<Arc<Switch>>,
}

impl<W: Send + Sync + 'static> Faulty<W> {
    /// The switch of a step that is to be cut short, and after how many waits.
    fn cut(&self) -> Option<(&Arc<Switch>, u8)> {
        self.switches.iter().find_map(|switch| match switch.what {
            what @ (Misbehaviour::CutShort(waits) | Misbehaviour::CutThenRefuse(waits))
                if switch.is_on(what, self.inner.id()) =>
            {
                Some((switch, waits))
            }
            _ => None,
        })
    }

    /// Runs `apply` until it has waited `waits` times; `None` if it was cut short then.
    async fn cut_short(&self, world: &W, cx: &Cx, waits: u8) -> Option<Result<(), StepError>> {
        let mut left = waits;
        let mut apply = self.inner.apply(world, cx);
        std::future::poll_fn(|context| match apply.as_mut().poll(context) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => {
                left -= 1;
                Poll::Pending
            }
        })
        .await
    }

    /// Whether the step misbehaves so now; counts it.
    fn is(&self, what: Misbehaviour) -> bool {
        self.on(what).inspect(|switch| switch.hit()).is_some()
    }

    /// The switch that makes the step misbehave so now.
    fn on(&self, what: Misbehaviour) -> Option<&Arc<Switch>> {
        self.switches.iter().find(|switch| switch.is_on(what, self.inner.id()))
    }

    fn object(&self) -> String {
        format!("the proof's {}", self.inner.id())
    }
}

#[async_trait]
impl<W: Send + Sync + 'static> Step<W> for Faulty<W> {
    fn id(&self) -> &'static str {
        self.inner.id()
    }

    fn title(&self) -> &'static str {
        self.inner.title()
    }

    fn kind(&self) -> StepKind {
        self.inner.kind()
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    async fn guard(&self, world: &W, cx: &Cx) -> Result<(), StepError> {
        if self.is(Misbehaviour::RefuseGuard) {
            return Err(StepError::refused(self.object(), "guard refuses"));
        }
        if self.is(Misbehaviour::RefuseGuardDone) {
            // The look has its answer by then.
            tokio::time::sleep(MOMENT).await;
            return Err(StepError::refused(self.object(), "guard refuses what is done"));
        }
        if self.is(Misbehaviour::HangGuard) {
            return std::future::pending().await;
        }
        self.inner.guard(world, cx).await?;
        if let Some(switch) = self.on(Misbehaviour::DoneEarly).filter(|switch| !switch.was_hit()) {
            self.inner.apply(world, cx).await?;
            switch.hit();
        }
        Ok(())
    }

    async fn observe(&self, world: &W, cx: &Cx) -> Result<Observation, StepError> {
        if self.is(Misbehaviour::Foreign) {
            return Ok(Observation::Foreign(self.object()));
        }
        if self.on(Misbehaviour::RefuseGuardDone).is_some() {
            return Ok(Observation::Done);
        }
        if let Some(switch) = self.on(Misbehaviour::DoneEarly) {
            while !switch.was_hit() {
                tokio::time::sleep(MOMENT).await;
            }
        }
        self.inner.observe(world, cx).await
    }

    async fn apply(&self, world: &W, cx: &Cx) -> Result<(), StepError> {
        let _counted = self.is(Misbehaviour::Count);
        if self.on(Misbehaviour::DoneEarly).is_some() {
            return Err(StepError::refused(self.object(), "it is done, and is applied all the same"));
        }
        if self.is(Misbehaviour::RefuseBefore) {
            return Err(StepError::refused(self.object(), "apply refuses"));
        }
        if let Some(switch) = self.on(Misbehaviour::RefuseOnce) {
            switch.hit();
            switch.off();
            return Err(StepError::refused(self.object(), "apply refuses this time"));
        }
        if self.is(Misbehaviour::RefuseStale) {
            return Err(StepError::refused(self.object(), "a newer driver is at work").with_code(STALE_EPOCH));
        }
        if self.is(Misbehaviour::Unknown) {
            return Err(StepError::unknown(self.object(), "no answer").with_status("nothing done"));
        }
        if self.is(Misbehaviour::Lie) {
            return Ok(());
        }
        if self.is(Misbehaviour::Hang) {
            return std::future::pending().await;
        }
        if let Some((switch, waits)) = self.cut() {
            if let Some(outcome) = self.cut_short(world, cx, waits).await {
                return outcome;
            }
            switch.hit();
            switch.off();
            return Err(match switch.what {
                Misbehaviour::CutShort(_) => StepError::unknown(self.object(), "it was cut short"),
                _ => StepError::refused(self.object(), "it was cut short and refuses"),
            });
        }
        if self.is(Misbehaviour::ApplyTwice) {
            self.inner.apply(world, cx).await?;
        }
        self.inner.apply(world, cx).await?;
        if self.is(Misbehaviour::RefuseAfter) {
            return Err(StepError::refused(self.object(), "apply refuses after all"));
        }
        if self.is(Misbehaviour::UnknownOnce) {
            self.switches.iter().filter(|s| s.what == Misbehaviour::UnknownOnce).for_each(|s| s.off());
            return Err(StepError::unknown(self.object(), "no answer").with_status("all done"));
        }
        Ok(())
    }

    async fn undo(&self, world: &W, cx: &Cx) -> Result<(), StepError> {
        if self.is(Misbehaviour::UndoUnknown) {
            return Err(StepError::unknown(self.object(), "no answer to undo"));
        }
        if self.is(Misbehaviour::UndoLie) {
            return Ok(());
        }
        if self.is(Misbehaviour::UndoTwice) {
            self.inner.undo(world, cx).await?;
        }
        self.inner.undo(world, cx).await
    }
}
