//! Version 1 of the stored form. Never changes: a golden file holds it in place.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::{Doing, End, Event, EventBody, Facts};
use crate::fault::{Class, Failure};
use crate::ids::{DeploymentId, Epoch};
use crate::plan::{Draft, Plan, PlanStep, Retry, Section};
use crate::step::StepKind;
use crate::stored::StoredError;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredEvent {
    v: u32,
    seq: u64,
    epoch: u64,
    at: Timestamp,
    mono_ns: u64,
    event: StoredBody,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
enum StoredBody {
    RunCreated { plan: StoredPlan },
    Resumed { holder: String },
    Confirmed {},
    Started { step: String },
    Succeeded { step: String, facts: Facts },
    Failed { step: String, class: Class, failure: Failure, attempt: u32 },
    Lost { step: String, failure: Failure },
    GateWaiting { step: String, what: String },
    GateOpened { step: String, by: String },
    Deadline { step: String, elapsed_ms: u64 },
    UndoRequested { by: String },
    UndoStarted { step: String },
    Undone { step: String },
    UndoFailed { step: String, class: Class, failure: Failure, attempt: u32 },
    Stuck { step: String, doing: Doing, failure: Failure },
    Stopped {},
    Finished { end: End },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPlan {
    engine: u32,
    kind: String,
    deployment: String,
    steps: Vec<StoredStep>,
    section: Option<Section>,
    retry: Retry,
    section_retry: Retry,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredStep {
    id: String,
    kind: StepKind,
    params: Value,
}

pub(super) fn plan_contents(draft: &Draft, engine: u32) -> Value {
    // A struct of strings, numbers and JSON values always has a JSON form.
    serde_json::to_value(store_plan(draft, engine, "")).unwrap_or(Value::Null)
}

fn store_plan(draft: &Draft, engine: u32, hash: &str) -> StoredPlan {
    let step = |s: &PlanStep| StoredStep { id: s.id.clone(), kind: s.kind, params: s.params.clone() };
    StoredPlan {
        engine,
        kind: draft.kind.clone(),
        deployment: draft.deployment.to_string(),
        steps: draft.steps.iter().map(step).collect(),
        section: draft.section.clone(),
        retry: draft.retry,
        section_retry: draft.section_retry,
        hash: hash.to_owned(),
    }
}

fn load_plan(stored: StoredPlan) -> Result<Plan, StoredError> {
    let deployment =
        DeploymentId::parse(&stored.deployment).map_err(|e| StoredError::Shape(e.to_string()))?;
    let step = |s: StoredStep| PlanStep { id: s.id, kind: s.kind, params: s.params };
    let draft = Draft {
        kind: stored.kind,
        deployment,
        steps: stored.steps.into_iter().map(step).collect(),
        section: stored.section,
        retry: stored.retry,
        section_retry: stored.section_retry,
    };
    Ok(Plan::recorded(draft, stored.engine, stored.hash))
}

impl From<&Event> for StoredEvent {
    fn from(event: &Event) -> Self {
        Self {
            v: 1,
            seq: event.seq,
            epoch: event.epoch.0,
            at: event.at,
            mono_ns: event.mono_ns,
            event: StoredBody::from(event.body.clone()),
        }
    }
}

impl TryFrom<StoredEvent> for Event {
    type Error = StoredError;

    fn try_from(stored: StoredEvent) -> Result<Self, StoredError> {
        Ok(Self {
            seq: stored.seq,
            epoch: Epoch(stored.epoch),
            at: stored.at,
            mono_ns: stored.mono_ns,
            body: EventBody::try_from(stored.event)?,
        })
    }
}

impl From<EventBody> for StoredBody {
    fn from(body: EventBody) -> Self {
        match body {
            EventBody::RunCreated { plan } => {
                Self::RunCreated { plan: store_plan(plan.draft(), plan.engine(), plan.hash()) }
            }
            EventBody::Resumed { holder } => Self::Resumed { holder },
            EventBody::Confirmed => Self::Confirmed {},
            EventBody::Started { step } => Self::Started { step },
            EventBody::Succeeded { step, facts } => Self::Succeeded { step, facts },
            EventBody::Failed { step, class, failure, attempt } => {
                Self::Failed { step, class, failure, attempt }
            }
            EventBody::Lost { step, failure } => Self::Lost { step, failure },
            EventBody::GateWaiting { step, what } => Self::GateWaiting { step, what },
            EventBody::GateOpened { step, by } => Self::GateOpened { step, by },
            EventBody::Deadline { step, elapsed_ms } => Self::Deadline { step, elapsed_ms },
            EventBody::UndoRequested { by } => Self::UndoRequested { by },
            EventBody::UndoStarted { step } => Self::UndoStarted { step },
            EventBody::Undone { step } => Self::Undone { step },
            EventBody::UndoFailed { step, class, failure, attempt } => {
                Self::UndoFailed { step, class, failure, attempt }
            }
            EventBody::Stuck { step, doing, failure } => Self::Stuck { step, doing, failure },
            EventBody::Stopped => Self::Stopped {},
            EventBody::Finished { end } => Self::Finished { end },
        }
    }
}

impl TryFrom<StoredBody> for EventBody {
    type Error = StoredError;

    fn try_from(stored: StoredBody) -> Result<Self, StoredError> {
        Ok(match stored {
            StoredBody::RunCreated { plan } => Self::RunCreated { plan: load_plan(plan)? },
            StoredBody::Resumed { holder } => Self::Resumed { holder },
            StoredBody::Confirmed {} => Self::Confirmed,
            StoredBody::Started { step } => Self::Started { step },
            StoredBody::Succeeded { step, facts } => Self::Succeeded { step, facts },
            StoredBody::Failed { step, class, failure, attempt } => {
                Self::Failed { step, class, failure, attempt }
            }
            StoredBody::Lost { step, failure } => Self::Lost { step, failure },
            StoredBody::GateWaiting { step, what } => Self::GateWaiting { step, what },
            StoredBody::GateOpened { step, by } => Self::GateOpened { step, by },
            StoredBody::Deadline { step, elapsed_ms } => Self::Deadline { step, elapsed_ms },
            StoredBody::UndoRequested { by } => Self::UndoRequested { by },
            StoredBody::UndoStarted { step } => Self::UndoStarted { step },
            StoredBody::Undone { step } => Self::Undone { step },
            StoredBody::UndoFailed { step, class, failure, attempt } => {
                Self::UndoFailed { step, class, failure, attempt }
            }
            StoredBody::Stuck { step, doing, failure } => Self::Stuck { step, doing, failure },
            StoredBody::Stopped {} => Self::Stopped,
            StoredBody::Finished { end } => Self::Finished { end },
        })
    }
}
