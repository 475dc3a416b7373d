//! Owns `SHOW STATE`. Changes nothing. `access` is what who asks may do here: `command`, or `read`.

use tokio::time::Instant;

use super::admit::Visitor;
use super::answer::Answer;
use super::census;
use crate::gate::Phase;
use crate::shared::Shared;

pub(super) fn show_state(shared: &Shared, visitor: &Visitor) -> Answer {
    let view = shared.gate.view();
    let census = census(shared);
    let (state, run, remaining) = match &view.phase {
        Phase::Flowing => ("flowing", String::new(), 0),
        Phase::Held(hold) => {
            ("held", hold.run.clone(), hold.deadline.saturating_duration_since(Instant::now()).as_millis())
        }
    };
    Answer::one([
        ("state", state.into()),
        ("route", view.course.side.to_string()),
        ("epoch", view.epoch.to_string()),
        ("run", run),
        ("clients", census.sessions.to_string()),
        ("busy", view.busy.to_string()),
        ("held", view.waiting.to_string()),
        ("warm_side", shared.warm_side().map(|side| side.to_string()).unwrap_or_default()),
        ("warm", census.warm.to_string()),
        ("stale", census.stale.to_string()),
        ("pinned", census.pinned.to_string()),
        ("longest_transaction_ms", (census.longest_us / 1000).to_string()),
        ("hold_remaining_ms", remaining.to_string()),
        ("last_release_reason", view.last_release),
        ("free_upstreams", shared.pool.len().to_string()),
        ("left_behind", shared.farewell.len().to_string()),
        ("access", visitor.access().into()),
        ("pid", std::process::id().to_string()),
        ("predecessor", shared.gate.of_predecessor().map(|left| left.to_string()).unwrap_or_default()),
        ("predecessor_pid", shared.gate.former().map(|former| former.pid.to_string()).unwrap_or_default()),
    ])
}
