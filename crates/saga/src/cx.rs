//! What a step is told and may say while it runs: its parameters, names, bounds, and where progress and facts go.
//! Refuses to hand out the journal or other steps' records.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::event::Facts;
use crate::fault::StepError;
use crate::ids::{DeploymentId, Epoch, RunId};
use crate::observer::{Observer, Progress, Silent};
use crate::stop::Stop;

/// The most facts one step may note; later ones are dropped.
const MAX_FACTS: usize = 256;

/// The facts that a step has noted so far.
pub(crate) type Noted = Arc<Mutex<Facts>>;

/// The context of one call of a step.
#[derive(Clone)]
pub struct Cx {
    pub(crate) run: RunId,
    pub(crate) deployment: DeploymentId,
    pub(crate) epoch: Epoch,
    pub(crate) step: String,
    pub(crate) params: Arc<Value>,
    pub(crate) attempt: u32,
    pub(crate) deadline: Option<Instant>,
    pub(crate) stop: Stop,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) facts: Noted,
}

impl std::fmt::Debug for Cx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cx")
            .field("run", &self.run)
            .field("step", &self.step)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Cx {
    /// A context outside any run, for trying a single step.
    pub fn detached(
        run: RunId,
        deployment: DeploymentId,
        epoch: Epoch,
        step: impl Into<String>,
        params: Value,
    ) -> Self {
        Self {
            run,
            deployment,
            epoch,
            step: step.into(),
            params: Arc::new(params),
            attempt: 1,
            deadline: None,
            stop: Stop::never(),
            observer: Arc::new(Silent),
            facts: Arc::default(),
        }
    }

    /// With a deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// With a stop.
    #[must_use]
    pub fn with_stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// With a reader of progress.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// The deployment, after which our objects are named.
    pub fn deployment(&self) -> &DeploymentId {
        &self.deployment
    }

    /// The epoch, to be sent along with every command that can refuse an older one.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The id of this step.
    pub fn step(&self) -> &str {
        &self.step
    }

    /// Which try this is since the last resume, beginning with 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The parameters frozen in the plan.
    ///
    /// # Errors
    /// Refused if they are not of the shape `T`.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        T::deserialize(&*self.params).map_err(|error| {
            StepError::refused(format!("plan of {}", self.step), format!("parameters do not fit: {error}"))
        })
    }

    /// When the section's bound passes; `None` outside a section and after the point of no return.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// `bound`, or what is left of the section if that is less.
    pub fn within(&self, bound: Duration) -> Duration {
        self.deadline.map_or(bound, |deadline| bound.min(deadline.saturating_duration_since(Instant::now())))
    }

    /// The operator's wish to stop. Long waits must listen to it and end with [`StepError::Stopped`]. It is never
    /// heard by a step that must not rest.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Notes a fact for the journal: it is recorded when the step succeeds. A later note under the same key replaces
    /// the earlier one. What cannot be written as JSON is left out. Never a secret.
    pub fn note(&self, key: &str, value: impl Serialize) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(value) = serde_json::to_value(value)
            && (facts.len() < MAX_FACTS || facts.contains_key(key))
        {
            facts.insert(key.to_owned(), value);
        }
    }

    /// Says what is being done or waited for.
    pub fn say(&self, message: impl Into<String>) {
        self.report(None, message, None, None, "");
    }

    /// Says how far a part of the step (or the whole, with `item` `None`) has come, counted in `unit`.
    pub fn report(
        &self,
        item: Option<&str>,
        message: impl Into<String>,
        done: Option<u64>,
        total: Option<u64>,
        unit: &'static str,
    ) {
        self.observer.progress(&Progress {
            run: self.run.to_string(),
            step: self.step.clone(),
            item: item.map(str::to_owned),
            message: message.into(),
            done,
            total,
            unit,
        });
    }

    pub(crate) fn take_facts(&self) -> Facts {
        std::mem::take(&mut *self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
