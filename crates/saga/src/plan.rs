//! The frozen plan: which steps, with which parameters, under which bounds. Every choice is made here.
//! Refuses to know what the parameters mean.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::ids::DeploymentId;
use crate::step::StepKind;

/// The meaning of plans and events. A run is only ever driven by the engine version that froze it.
pub const ENGINE_VERSION: u32 = 1;
/// The most steps a plan may have.
pub const MAX_STEPS: usize = 256;
/// The least longest wait between two tries to undo a step of the section, in milliseconds: bounds what they journal.
const MIN_LAST_WAIT_MS: u64 = 250;

/// How often and how long an unknown outcome is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// The most tries in all, the first included.
    pub attempts: u32,
    /// The wait before the second try, in milliseconds; doubles from try to try.
    pub first_ms: u64,
    /// The longest wait between two tries, in milliseconds.
    pub max_ms: u64,
    /// No further try begins when this many milliseconds have passed since the first failure.
    pub total_ms: u64,
}

impl Retry {
    /// Outside a section: ten tries within two minutes.
    pub const PATIENT: Self = Self { attempts: 10, first_ms: 200, max_ms: 15_000, total_ms: 120_000 };
    /// Inside a section, where clients wait: at once, then every quarter of a second at most, for five seconds.
    pub const SHORT: Self = Self { attempts: 24, first_ms: 5, max_ms: 250, total_ms: 5_000 };

    /// The wait after the failed try number `attempt`.
    pub fn wait_after(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(20);
        Duration::from_millis(self.first_ms.saturating_mul(1 << doublings).min(self.max_ms))
    }
}

/// A stretch of the plan under one deadline: from its first step's `Started` until the point of no return has started
/// or, without one, until its last step has succeeded. When the bound passes before that, the run unwinds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Its first step.
    pub first: String,
    /// Its last step.
    pub last: String,
    /// The bound in milliseconds.
    pub bound_ms: u64,
}

/// One step of the plan.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanStep {
    /// The step's id.
    pub id: String,
    /// Its kind when the plan was frozen.
    pub kind: StepKind,
    /// Its parameters. Never a secret.
    pub params: Value,
}

/// Why a plan is no plan, or not one that can be driven here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing to do, or too much.
    #[error("a plan has 1 to {MAX_STEPS} steps, this one has {0}")]
    Size(usize),
    /// A step twice, or out of the registry's order.
    #[error("step {0} is in the plan twice or out of order")]
    Order(String),
    /// A kind of step where it cannot be.
    #[error("step {step} ({kind:?}) cannot be there: {rule}")]
    Kind {
        /// The step.
        step: String,
        /// Its kind.
        kind: StepKind,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// A section whose ends are not in the plan, or the wrong way round.
    #[error("the section from {first} to {last} is not a stretch of the plan with a bound")]
    Section {
        /// Its first step.
        first: String,
        /// Its last step.
        last: String,
    },
    /// A retry policy without any try.
    #[error("a retry policy must allow at least one try")]
    NoTries,
    /// The registry knows no such step.
    #[error("this program knows no step {step} in a run of kind {kind}")]
    UnknownStep {
        /// The kind of run.
        kind: String,
        /// The step.
        step: String,
    },
    /// The plan is of another kind of run.
    #[error("the plan is for a run of kind {plan}, not {registry}")]
    OtherKind {
        /// The plan's.
        plan: String,
        /// The registry's.
        registry: String,
    },
    /// A step means something else in this program.
    #[error("step {0} was planned as another kind of step than this program has")]
    StepChanged(String),
    /// The plan was frozen by another engine.
    #[error("the plan was frozen by engine version {0}, this program has {ENGINE_VERSION}")]
    OtherEngine(u32),
    /// The plan is not the one that was frozen.
    #[error("the plan's hash is {recorded}, but its contents give {computed}")]
    HashDiffers {
        /// What was recorded.
        recorded: String,
        /// What its contents give.
        computed: String,
    },
}

/// What a plan is made of, before it is frozen.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The kind of run: `up`, `switch`, `back`, `finish`.
    pub kind: String,
    /// The deployment.
    pub deployment: DeploymentId,
    /// The steps in order.
    pub steps: Vec<PlanStep>,
    /// The stretch under a deadline.
    pub section: Option<Section>,
    /// Tries outside the section.
    pub retry: Retry,
    /// Tries inside it.
    pub section_retry: Retry,
}

/// A frozen plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    draft: Draft,
    engine: u32,
    hash: String,
}

impl Plan {
    /// Freezes `draft`.
    ///
    /// # Errors
    /// [`PlanError`] if its shape breaks a rule of the engine.
    pub fn freeze(draft: Draft) -> Result<Self, PlanError> {
        check_shape(&draft)?;
        let hash = hash(&draft, ENGINE_VERSION);
        Ok(Self { draft, engine: ENGINE_VERSION, hash })
    }

    /// A plan as it was recorded; [`Plan::check`] says whether it is sound.
    pub(crate) fn recorded(draft: Draft, engine: u32, hash: String) -> Self {
        Self { draft, engine, hash }
    }

    /// Whether this is what was frozen, by this engine.
    ///
    /// # Errors
    /// [`PlanError::OtherEngine`], [`PlanError::HashDiffers`], or what is wrong with its shape.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.engine != ENGINE_VERSION {
            return Err(PlanError::OtherEngine(self.engine));
        }
        let computed = hash(&self.draft, self.engine);
        if computed != self.hash {
            return Err(PlanError::HashDiffers { recorded: self.hash.clone(), computed });
        }
        check_shape(&self.draft)
    }

    /// The kind of run.
    pub fn kind(&self) -> &str {
        &self.draft.kind
    }

    /// The deployment.
    pub fn deployment(&self) -> &DeploymentId {
        &self.draft.deployment
    }

    /// The steps in order.
    pub fn steps(&self) -> &[PlanStep] {
        &self.draft.steps
    }

    /// The stretch under a deadline.
    pub fn section(&self) -> Option<&Section> {
        self.draft.section.as_ref()
    }

    /// Everything that was frozen.
    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    /// The engine version that froze it.
    pub fn engine(&self) -> u32 {
        self.engine
    }

    /// SHA-256 of its contents, in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The place of a step in the plan.
    pub fn index_of(&self, step: &str) -> Option<usize> {
        self.steps().iter().position(|planned| planned.id == step)
    }

    /// The tries for the step at `index`.
    pub fn retry_at(&self, index: usize) -> Retry {
        if self.is_in_section(index) { self.draft.section_retry } else { self.draft.retry }
    }

    /// The tries to undo the step at `index`: inside the section as fast as its own tries, because clients wait, but as
    /// long as outside it, because resting would leave them waiting.
    pub fn undo_retry_at(&self, index: usize) -> Retry {
        let (outside, inside) = (self.draft.retry, self.draft.section_retry);
        if self.is_in_section(index) {
            return Retry {
                attempts: u32::MAX,
                max_ms: inside.max_ms.max(MIN_LAST_WAIT_MS),
                total_ms: outside.total_ms,
                ..inside
            };
        }
        outside
    }

    /// Whether the step at `index` is inside the section.
    pub fn is_in_section(&self, index: usize) -> bool {
        self.section_span().is_some_and(|(first, last)| (first..=last).contains(&index))
    }

    /// The places of the section's first and last step.
    pub fn section_span(&self) -> Option<(usize, usize)> {
        let section = self.section()?;
        Some((self.index_of(&section.first)?, self.index_of(&section.last)?))
    }
}

fn check_shape(draft: &Draft) -> Result<(), PlanError> {
    let steps = &draft.steps;
    if steps.is_empty() || steps.len() > MAX_STEPS {
        return Err(PlanError::Size(steps.len()));
    }
    let mut passed = false;
    for (index, step) in steps.iter().enumerate() {
        if steps[..index].iter().any(|earlier| earlier.id == step.id) {
            return Err(PlanError::Order(step.id.clone()));
        }
        let broken = match step.kind {
            StepKind::PointOfNoReturn if passed => Some("there is one point of no return at most"),
            StepKind::ForwardOnly if !passed => Some("forward-only steps come after the point of no return"),
            StepKind::Effect | StepKind::Transient if passed => {
                Some("after the point of no return only forward-only steps and gates may come")
            }
            _ => None,
        };
        if let Some(rule) = broken {
            return Err(PlanError::Kind { step: step.id.clone(), kind: step.kind, rule });
        }
        passed |= step.kind == StepKind::PointOfNoReturn;
    }
    if draft.retry.attempts == 0 || draft.section_retry.attempts == 0 {
        return Err(PlanError::NoTries);
    }
    check_section(draft)
}

fn check_section(draft: &Draft) -> Result<(), PlanError> {
    let Some(section) = &draft.section else { return Ok(()) };
    let place = |id: &str| draft.steps.iter().position(|step| step.id == id);
    let bad = || PlanError::Section { first: section.first.clone(), last: section.last.clone() };
    let (Some(first), Some(last)) = (place(&section.first), place(&section.last)) else { return Err(bad()) };
    if first > last || section.bound_ms == 0 {
        return Err(bad());
    }
    // A section that began after the point of no return could never unwind, so its bound would promise nothing.
    if draft.steps[..=first].iter().any(|step| step.kind.is_forward()) {
        return Err(bad());
    }
    match draft.steps[first..=last].iter().find(|step| step.kind == StepKind::Gate) {
        Some(gate) => Err(PlanError::Kind {
            step: gate.id.clone(),
            kind: gate.kind,
            rule: "a section holds clients, nobody may be waited for inside it",
        }),
        None => Ok(()),
    }
}

/// The plan's fingerprint: over a form with sorted keys, so that it does not hang on how a journal stores JSON.
fn hash(draft: &Draft, engine: u32) -> String {
    let mut text = String::new();
    canonical(&crate::stored::plan_contents(draft, engine), &mut text);
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        hex.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        hex.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    hex
}

fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (key, value) in entries {
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(values) => {
            out.push('[');
            for value in values {
                canonical(value, out);
                out.push(',');
            }
            out.push(']');
        }
        leaf => out.push_str(&leaf.to_string()),
    }
}
