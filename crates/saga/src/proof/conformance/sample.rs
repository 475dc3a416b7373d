//! Events for the checks. Refuses to be a legal story: a journal does not know which event may follow which.

use jiff::Timestamp;
use serde_json::json;

use crate::event::{Event, EventBody};
use crate::ids::{DeploymentId, Epoch, RunId};
use crate::journal::{Durability, Journal, Lease};
use crate::plan::{Draft, Plan, PlanStep, Retry};
use crate::proof::conformance::said;
use crate::step::StepKind;

/// A run in the making, with its lease.
pub(super) struct Story {
    pub(super) run: RunId,
    pub(super) lease: Lease,
    pub(super) events: Vec<Event>,
}

impl Story {
    /// A created run of a new deployment.
    pub(super) async fn begin(journal: &dyn Journal) -> Result<Self, String> {
        let deployment = DeploymentId::generate();
        let lease = journal.acquire(&deployment, "one", at(0)).await.map_err(said)?;
        let run = RunId::generate("up").map_err(|error| error.to_string())?;
        let mut story = Self { run, lease, events: Vec::new() };
        story.append(journal, EventBody::RunCreated { plan: plan(deployment, 10)? }).await?;
        Ok(story)
    }

    /// Appends one event and remembers it.
    pub(super) async fn append(&mut self, journal: &dyn Journal, body: EventBody) -> Result<(), String> {
        let event = self.next(body);
        let durability = if event.seq % 2 == 1 { Durability::Sync } else { Durability::Deferred };
        let last = journal
            .append(&self.run, self.lease.epoch, event.seq - 1, std::slice::from_ref(&event), durability)
            .await
            .map_err(said)?;
        if last != event.seq {
            return Err(format!("the append of event {} returned {last}", event.seq));
        }
        self.events.push(event);
        Ok(())
    }

    /// Appends `count` events.
    pub(super) async fn go_on(&mut self, journal: &dyn Journal, count: usize) -> Result<(), String> {
        for _ in 0..count {
            let body = started(self.events.len());
            self.append(journal, body).await?;
        }
        Ok(())
    }

    /// The event that would come next.
    pub(super) fn next(&self, body: EventBody) -> Event {
        let seq = self.events.len() as u64 + 1;
        event(seq, self.lease.epoch, body)
    }

    /// Whether the journal has exactly the events that were appended.
    pub(super) async fn must_be_kept(&self, journal: &dyn Journal) -> Result<(), String> {
        let found = journal.load(&self.run).await.map_err(said)?;
        if found == self.events {
            return Ok(());
        }
        Err(format!("{} events were appended, these came back: {found:?}", self.events.len()))
    }
}

pub(super) fn event(seq: u64, epoch: Epoch, body: EventBody) -> Event {
    Event { seq, epoch, at: at(seq), mono_ns: seq * 1_000, body }
}

pub(super) fn started(number: usize) -> EventBody {
    EventBody::Started { step: format!("step-{number}-\u{fc}\u{1f418}-\"quoted\"\n") }
}

pub(super) fn at(seq: u64) -> Timestamp {
    let micros = 1_796_300_000_123_456 + i64::try_from(seq).unwrap_or(0);
    Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A plan with a parameter of `size` bytes and numbers that must survive exactly.
pub(super) fn plan(deployment: DeploymentId, size: usize) -> Result<Plan, String> {
    let params = json!({"z": "x".repeat(size), "a": 0.1, "tiny": 5e-324, "big": u64::MAX, "nested": [null, {"b": -1}]});
    Plan::freeze(Draft {
        kind: "up".into(),
        deployment,
        steps: vec![PlanStep { id: "one".into(), kind: StepKind::Effect, params }],
        section: None,
        retry: Retry::PATIENT,
        section_retry: Retry::SHORT,
    })
    .map_err(|error| error.to_string())
}
