//! The ordered list of the steps of one kind of run.
//! Refuses to choose: which of them a run has is frozen in its plan.

use std::sync::Arc;

use serde_json::Value;

use crate::ids::{DeploymentId, is_kebab};
use crate::journal::Durability;
use crate::plan::{Draft, Plan, PlanError, PlanStep, Retry, Section};
use crate::step::{Step, StepKind};

/// Why a list of steps is no registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// A name of another shape.
    #[error("{0:?} is no name of a kind of run or a step: a-z, 0-9 and -, beginning with a letter")]
    BadName(String),
    /// Two steps of one name.
    #[error("there are two steps {0}")]
    Twice(&'static str),
    /// The point of no return cannot be deferred.
    #[error("step {0} is the point of no return, its records must be durable at once")]
    Deferred(&'static str),
}

/// The steps of one kind of run.
pub struct Registry<W: Send + Sync + 'static> {
    kind: &'static str,
    steps: Vec<Arc<dyn Step<W>>>,
}

impl<W: Send + Sync + 'static> std::fmt::Debug for Registry<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("kind", &self.kind).field("steps", &self.steps.len()).finish()
    }
}

impl<W: Send + Sync + 'static> Registry<W> {
    /// The steps of runs of `kind`, in order.
    ///
    /// # Errors
    /// [`RegistryError`] if a name is bad or there twice.
    pub fn new(kind: &'static str, steps: Vec<Arc<dyn Step<W>>>) -> Result<Self, RegistryError> {
        if !is_kebab(kind) {
            return Err(RegistryError::BadName(kind.to_owned()));
        }
        for (index, step) in steps.iter().enumerate() {
            if !is_kebab(step.id()) {
                return Err(RegistryError::BadName(step.id().to_owned()));
            }
            if steps[..index].iter().any(|earlier| earlier.id() == step.id()) {
                return Err(RegistryError::Twice(step.id()));
            }
            if step.kind() == StepKind::PointOfNoReturn && step.durability() == Durability::Deferred {
                return Err(RegistryError::Deferred(step.id()));
            }
        }
        Ok(Self { kind, steps })
    }

    /// No steps: a plan of it cannot be frozen.
    pub(crate) fn empty(kind: &'static str) -> Self {
        Self { kind, steps: Vec::new() }
    }

    /// The kind of run.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The steps in order.
    pub fn steps(&self) -> &[Arc<dyn Step<W>>] {
        &self.steps
    }

    /// The step `id`.
    pub fn get(&self, id: &str) -> Option<&Arc<dyn Step<W>>> {
        self.steps.iter().find(|step| step.id() == id)
    }

    /// Begins a plan: `params` says for each step whether it is in the plan and with which parameters.
    pub fn plan(
        &self,
        deployment: DeploymentId,
        mut params: impl FnMut(&'static str) -> Option<Value>,
    ) -> PlanBuilder {
        let planned = |step: &Arc<dyn Step<W>>| {
            params(step.id()).map(|params| PlanStep { id: step.id().to_owned(), kind: step.kind(), params })
        };
        PlanBuilder(Draft {
            kind: self.kind.to_owned(),
            deployment,
            steps: self.steps.iter().filter_map(planned).collect(),
            section: None,
            retry: Retry::PATIENT,
            section_retry: Retry::SHORT,
        })
    }

    /// Whether this program can drive `plan`: it is what was frozen, and each of its steps is known, in this order,
    /// and of the same kind.
    ///
    /// # Errors
    /// [`PlanError`]: which of these it is not.
    pub fn check(&self, plan: &Plan) -> Result<(), PlanError> {
        plan.check()?;
        if plan.kind() != self.kind {
            return Err(PlanError::OtherKind { plan: plan.kind().into(), registry: self.kind.into() });
        }
        let mut from = 0;
        for planned in plan.steps() {
            let Some(place) = self.steps.iter().position(|step| step.id() == planned.id) else {
                return Err(PlanError::UnknownStep { kind: self.kind.into(), step: planned.id.clone() });
            };
            if self.steps[place].kind() != planned.kind {
                return Err(PlanError::StepChanged(planned.id.clone()));
            }
            if place < from {
                return Err(PlanError::Order(planned.id.clone()));
            }
            from = place + 1;
        }
        Ok(())
    }
}

/// A plan in the making.
#[derive(Debug, Clone)]
pub struct PlanBuilder(Draft);

impl PlanBuilder {
    /// Puts the steps from `first` to `last` under a bound of `bound_ms` milliseconds.
    #[must_use]
    pub fn section(mut self, first: &str, last: &str, bound_ms: u64) -> Self {
        self.0.section = Some(Section { first: first.into(), last: last.into(), bound_ms });
        self
    }

    /// Sets the tries outside and inside the section.
    #[must_use]
    pub fn retry(mut self, outside: Retry, inside: Retry) -> Self {
        self.0.retry = outside;
        self.0.section_retry = inside;
        self
    }

    /// Freezes the plan.
    ///
    /// # Errors
    /// [`PlanError`] if its shape breaks a rule of the engine.
    pub fn freeze(self) -> Result<Plan, PlanError> {
        Plan::freeze(self.0)
    }
}
