//! A runbook before it is driven: its steps, what they are, and which of them are under the deadline.

use pgteal_saga::{Plan, StepKind};
use serde_json::{Value, json};

use super::Titles;
use super::table::table;

fn word(kind: StepKind) -> &'static str {
    match kind {
        StepKind::Effect => "can be undone",
        StepKind::Transient => "nothing to undo",
        StepKind::Gate => "waits",
        StepKind::PointOfNoReturn => "point of no return",
        StepKind::ForwardOnly => "forward only",
    }
}

/// The steps as a table.
#[must_use]
pub fn draw(plan: &Plan, titles: &Titles) -> String {
    let rows = plan.steps().iter().enumerate().map(|(index, step)| {
        let title = titles.get(&step.id).map_or(step.id.as_str(), String::as_str);
        let bound = if plan.is_in_section(index) { "deadline" } else { "" };
        vec![
            (index + 1).to_string(),
            step.id.clone(),
            title.to_owned(),
            word(step.kind).to_owned(),
            bound.into(),
        ]
    });
    table(&["", "step", "what", "undo", "bound by"], &[0], rows)
}

/// The steps as JSON.
#[must_use]
pub fn value(plan: &Plan, titles: &Titles) -> Value {
    let steps = plan.steps().iter().enumerate().map(|(index, step)| {
        json!({
            "step": step.id,
            "title": titles.get(&step.id),
            "kind": step.kind,
            "under_deadline": plan.is_in_section(index),
        })
    });
    steps.collect()
}
