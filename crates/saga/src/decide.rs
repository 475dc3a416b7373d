//! What to do next: a pure and total function of the plan, the state, the time and the operator's wish.
//! Refuses to do anything.

use jiff::{SignedDuration, Timestamp};

use crate::event::{Doing, End};
use crate::fault::{Class, Failure};
use crate::plan::{Plan, Retry};
use crate::state::{Cause, Mark, Phase, Rest, State, Trouble};

/// Who asked for the undo when a stop came while clients were held.
pub const BY_STOP: &str = "stop";

/// What the decision may depend on besides the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The time.
    pub at: Timestamp,
    /// Whether the operator wants to stop.
    pub stop: bool,
}

/// The next thing to do. Steps are named by their place in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Look whether the section's steps are still in effect.
    Confirm,
    /// Guard and start a step, not before a time.
    Begin {
        /// The step.
        step: usize,
        /// Not earlier.
        not_before: Option<Timestamp>,
    },
    /// Guard a started step again where it may be undone, observe it, and apply it if it is not done, not before a time.
    Continue {
        /// The step.
        step: usize,
        /// Not earlier.
        not_before: Option<Timestamp>,
    },
    /// Record that an opened gate is passed.
    PassGate {
        /// The gate.
        step: usize,
    },
    /// Record that the section's bound has passed: unwind.
    Expire {
        /// The step the run is at.
        step: usize,
        /// Milliseconds since the section began.
        elapsed_ms: u64,
    },
    /// Unwind at the operator's word, because a rest here would keep clients held.
    UnwindForStop,
    /// Start the undo of a step.
    BeginUndo {
        /// The step.
        step: usize,
    },
    /// Undo a step whose undo has started, not before a time.
    ContinueUndo {
        /// The step.
        step: usize,
        /// Not earlier.
        not_before: Option<Timestamp>,
    },
    /// Record that the tries are used up.
    Stick {
        /// The step.
        step: usize,
        /// What was tried.
        doing: Doing,
        /// The last failure.
        failure: Failure,
    },
    /// Record that the operator stopped the run.
    Stop,
    /// Record the end.
    Finish(End),
    /// Nothing: it rests until it is resumed.
    Rest(Rest),
    /// Nothing: it is over.
    Over(End),
}

/// What to do next in a run of `plan` that stands at `state`.
pub fn decide(plan: &Plan, state: &State, now: Now) -> Decision {
    if let Some(rest) = state.rest() {
        return Decision::Rest(rest.clone());
    }
    match state.phase() {
        Phase::Done => Decision::Over(End::Done),
        Phase::Unwound(_) => Decision::Over(End::Unwound),
        Phase::Forward => match state.cursor() {
            None => Decision::Finish(End::Done),
            Some(step) => forward(plan, state, now, step),
        },
        Phase::Unwinding(_) => match state.cursor() {
            None => Decision::Finish(End::Unwound),
            Some(step) => backward(plan, state, now, step),
        },
    }
}

fn forward(plan: &Plan, state: &State, now: Now, step: usize) -> Decision {
    if let Some(elapsed_ms) = expired(state, now.at) {
        return Decision::Expire { step, elapsed_ms };
    }
    if now.stop && state.is_bounded() {
        return Decision::UnwindForStop;
    }
    if now.stop && !state.is_section_open() {
        return Decision::Stop;
    }
    if state.doubt {
        return Decision::Confirm;
    }
    if state.gate_open {
        return Decision::PassGate { step };
    }
    let mut not_before = None;
    if let Some(trouble) = state.trouble() {
        // While the bound runs nothing rests: trying goes on until the deadline decides.
        let retry = plan.retry_at(step);
        let used_up = !state.is_bounded() && are_tries_used_up(retry, trouble, now.at);
        if trouble.class == Class::Refused || used_up {
            return Decision::Stick { step, doing: Doing::Apply, failure: trouble.failure.clone() };
        }
        not_before = Some(next_try(retry, trouble));
    }
    match state.marks()[step] {
        Mark::Pending => Decision::Begin { step, not_before },
        _ => Decision::Continue { step, not_before },
    }
}

fn backward(plan: &Plan, state: &State, now: Now, step: usize) -> Decision {
    // A stop that asked for the way back is answered by going it to the end.
    let is_answer = matches!(state.phase(), Phase::Unwinding(Cause::Operator { by }) if by == BY_STOP);
    if now.stop && !state.is_section_open() && !is_answer {
        return Decision::Stop;
    }
    if state.marks()[step] != Mark::Undoing {
        return Decision::BeginUndo { step };
    }
    let mut not_before = None;
    if let Some(trouble) = state.trouble() {
        let retry = plan.undo_retry_at(step);
        if trouble.failure.is_stale() || are_tries_used_up(retry, trouble, now.at) {
            return Decision::Stick { step, doing: Doing::Undo, failure: trouble.failure.clone() };
        }
        not_before = Some(next_try(retry, trouble));
    }
    Decision::ContinueUndo { step, not_before }
}

/// Milliseconds since the section began, if its bound has passed. A clock that shows a time before the section began
/// was set back between two processes: nobody knows how long clients have waited, so that counts as passed.
fn expired(state: &State, now: Timestamp) -> Option<u64> {
    let (since, deadline) = (state.bounded_since()?, state.deadline()?);
    let gone = now.duration_since(since);
    (now >= deadline || gone.is_negative()).then(|| u64::try_from(gone.as_millis()).unwrap_or(0))
}

fn are_tries_used_up(retry: Retry, trouble: &Trouble, now: Timestamp) -> bool {
    let next = next_try(retry, trouble).max(now);
    let spent = u64::try_from(next.duration_since(trouble.since).as_millis()).unwrap_or(0);
    trouble.attempts >= retry.attempts || spent > retry.total_ms
}

fn next_try(retry: Retry, trouble: &Trouble) -> Timestamp {
    let wait = SignedDuration::try_from(retry.wait_after(trouble.attempts)).unwrap_or(SignedDuration::MAX);
    trouble.last_at.saturating_add(wait).unwrap_or(Timestamp::MAX)
}
