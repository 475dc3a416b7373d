//! How commands that drive a run answer: the result object, the timeline, and what may be done next.

use serde_json::json;

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::timeline;
use crate::run::{Desk, Journey};
use crate::ui::Style;

/// Answers for a run that is over or rests. `asked` says what was asked for, as a sentence that is true when it is done.
pub(super) async fn answer(
    context: &Context,
    desk: &mut Desk,
    journey: &Journey,
    asked: &str,
) -> Result<Exit, Failure> {
    desk.refresh().await?;
    let ui = &context.ui;
    let section = cutover(&journey.kind);
    let laps = timeline::laps(&journey.events, section);
    if section.is_some() && !laps.is_empty() {
        ui.line(format!("\n{}", timeline::draw(&laps, &journey.titles)));
    }
    if let Some(failure) = journey.failure() {
        return Err(failure);
    }
    let next: Vec<String> = desk.standing.next().iter().map(|next| ui.spelled(next)).collect();
    ui.line(format!("\n{} {asked}", ui.paint(Style::Good, "done:")));
    ui.line(format!("next: {}", next.join(", or: ")));
    ui.object(&json!({
        "result": {
            "run": journey.run.to_string(),
            "kind": journey.kind,
            "outcome": outcome(journey),
            "deployment": desk.standing.deployment.as_ref().map(ToString::to_string),
            "active": desk.standing.active,
            "timeline": timeline::value(&laps),
            "next": next,
        }
    }));
    Ok(Exit::Done)
}

fn outcome(journey: &Journey) -> &'static str {
    match journey.outcome {
        pgteal_saga::Outcome::Unwound { .. } => "unwound",
        _ => "done",
    }
}

/// First and last step of a kind's cutover.
#[must_use]
pub(super) fn cutover(kind: &str) -> Option<(&'static str, &'static str)> {
    matches!(kind, "switch" | "back").then_some(("hold-clients", "release"))
}
