//! Journals written in words: `started:hold failed:hold!unknown stopped`. For tests that are data.

use jiff::Timestamp;
use pgteal_saga::event::{Doing, End, Facts};
use pgteal_saga::fault::Class;
use pgteal_saga::plan::{Draft, PlanStep};
use pgteal_saga::{DeploymentId, Epoch, Event, EventBody, Failure, Plan, Retry, Section, StepKind};
use serde_json::json;

/// When stories begin.
pub(crate) fn beginning() -> Timestamp {
    "2026-12-03T10:00:00Z".parse().unwrap()
}

/// `kinds` spells the steps: `e`ffect, `t`ransient, `g`ate, `p`oint of no return, `f`orward only; their ids are `a`, `b`...
/// A `[` before and a `]` after enclose the section.
pub(crate) fn draft(kinds: &str) -> Draft {
    let mut steps = Vec::new();
    let (mut first, mut last) = (None, None);
    for letter in kinds.chars() {
        let id = String::from(char::from(b'a' + u8::try_from(steps.len()).unwrap()));
        let kind = match letter {
            '[' => {
                first = Some(id);
                continue;
            }
            ']' => {
                last = steps.last().map(|step: &PlanStep| step.id.clone());
                continue;
            }
            'e' => StepKind::Effect,
            't' => StepKind::Transient,
            'g' => StepKind::Gate,
            'p' => StepKind::PointOfNoReturn,
            'f' => StepKind::ForwardOnly,
            other => panic!("{other}"),
        };
        steps.push(PlanStep { id, kind, params: json!({}) });
    }
    let section = first.zip(last).map(|(first, last)| Section { first, last, bound_ms: 1_000 });
    Draft {
        kind: "switch".into(),
        deployment: DeploymentId::parse("abcdefgh").unwrap(),
        steps,
        section,
        retry: Retry { attempts: 3, first_ms: 100, max_ms: 150, total_ms: 10_000 },
        section_retry: Retry { attempts: 2, first_ms: 10, max_ms: 20, total_ms: 100 },
    }
}

pub(crate) fn plan(kinds: &str) -> Plan {
    Plan::freeze(draft(kinds)).unwrap()
}

pub(crate) fn failure() -> Failure {
    Failure::new("slot s", "no answer")
}

/// The events of a run of `plan`, one a millisecond, after `run-created`.
pub(crate) fn story(plan: &Plan, words: &str) -> Vec<Event> {
    let mut epoch = 1;
    let mut attempts = 0;
    let mut events = vec![event(1, 1, EventBody::RunCreated { plan: plan.clone() })];
    for word in words.split_whitespace() {
        let (name, rest) = word.split_once(':').unwrap_or((word, ""));
        let (step, how) = rest.split_once('!').unwrap_or((rest, ""));
        attempts = if name.ends_with("failed") { attempts + 1 } else { 0 };
        if name == "taken-over" {
            epoch += 1;
        }
        events.push(event(events.len() as u64 + 1, epoch, body(name, step.to_owned(), how, attempts)));
    }
    events
}

pub(crate) fn event(seq: u64, epoch: u64, body: EventBody) -> Event {
    let at = beginning() + jiff::SignedDuration::from_millis(i64::try_from(seq).unwrap());
    Event { seq, epoch: Epoch(epoch), at, mono_ns: seq * 1_000_000, body }
}

fn body(name: &str, step: String, how: &str, attempt: u32) -> EventBody {
    let class = if how == "refused" { Class::Refused } else { Class::Unknown };
    match name {
        "resumed" | "taken-over" => EventBody::Resumed { holder: "host 7".into() },
        "confirmed" => EventBody::Confirmed,
        "started" => EventBody::Started { step },
        "succeeded" => {
            EventBody::Succeeded { step, facts: Facts::from_iter([("lsn".into(), json!("0/1A"))]) }
        }
        "failed" => EventBody::Failed { step, class, failure: failure(), attempt },
        "lost" => {
            let (code, last_status) = (Some("foreign".to_owned()), Some("held = 0".to_owned()));
            EventBody::Lost { step, failure: Failure { code, last_status, ..failure() } }
        }
        "waiting" => EventBody::GateWaiting { step, what: "approval".into() },
        "opened" => EventBody::GateOpened { step, by: "ann".into() },
        "deadline" => EventBody::Deadline { step, elapsed_ms: 1_000 },
        "undo" => EventBody::UndoRequested { by: if step.is_empty() { "ann".into() } else { step } },
        "undoing" => EventBody::UndoStarted { step },
        "undone" => EventBody::Undone { step },
        "undo-failed" => EventBody::UndoFailed { step, class, failure: failure(), attempt },
        "stuck" => {
            let doing = if how == "undo" { Doing::Undo } else { Doing::Apply };
            EventBody::Stuck { step, doing, failure: failure() }
        }
        "stopped" => EventBody::Stopped,
        "done" => EventBody::Finished { end: End::Done },
        "unwound" => EventBody::Finished { end: End::Unwound },
        other => panic!("{other}"),
    }
}
