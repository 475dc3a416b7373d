//! Random plans and random events: the table never panics, and what it allows keeps the promises of the engine.

use crate::story;
use jiff::SignedDuration;
use pgteal_saga::decide::{Decision, Now, decide};
use pgteal_saga::event::{Doing, End};
use pgteal_saga::state::{Mark, Phase, State, fold};
use pgteal_saga::{Event, EventBody, Plan, StepKind};
use proptest::prelude::*;

const WORDS: [&str; 19] = [
    "resumed",
    "taken-over",
    "confirmed",
    "started",
    "succeeded",
    "failed!unknown",
    "failed!refused",
    "lost",
    "waiting",
    "opened",
    "deadline",
    "undo",
    "undoing",
    "undone",
    "undo-failed",
    "stuck!undo",
    "stuck",
    "stopped",
    "done",
];

fn kinds() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["eee", "ege", "[te]e", "e[etp]f", "t[eepf]fg", "[ep]", "p", "eg[eepff]f"])
}

/// Random words about random steps, most of which cannot follow each other.
fn words() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((0..WORDS.len(), 0..8_usize), 0..60)
}

fn event_of(plan: &Plan, word: usize, step: usize, state: &State) -> Event {
    let (name, how) = WORDS[word].split_once('!').unwrap_or((WORDS[word], ""));
    let id = &plan.steps()[step % plan.steps().len()].id;
    let words = format!("{name}:{id}!{how}");
    let mut event = story::story(plan, &words).pop().unwrap();
    event.seq = state.seq() + 1;
    event.epoch = pgteal_saga::Epoch(state.epoch().0 + u64::from(name == "taken-over"));
    if let EventBody::Failed { attempt, .. } | EventBody::UndoFailed { attempt, .. } = &mut event.body {
        *attempt = state.attempts() + 1;
    }
    event
}

/// What always holds of a state the table allowed.
fn promises(plan: &Plan, state: &State) {
    let passed =
        plan.steps().iter().zip(state.marks()).any(|(s, m)| s.kind.is_forward() && *m != Mark::Pending);
    assert_eq!(passed, state.is_passed());
    if passed {
        assert!(
            matches!(state.phase(), Phase::Forward | Phase::Done),
            "it unwinds past the point of no return"
        );
        assert!(!state.may_undo() && state.deadline().is_none());
    }
    if *state.phase() == Phase::Done {
        assert!(state.marks().iter().all(|mark| *mark == Mark::Succeeded));
    }
    if matches!(state.phase(), Phase::Unwound(_)) {
        assert!(state.marks().iter().all(|mark| matches!(mark, Mark::Pending | Mark::Undone)));
    }
    // Only one step is in the middle of something, and before it everything is done.
    let busy = state.marks().iter().filter(|m| matches!(m, Mark::Running | Mark::Undoing)).count();
    assert!(busy <= 2, "{:?}", state.marks());
    if let Some(running) = state.marks().iter().position(|mark| *mark == Mark::Running) {
        assert!(state.marks()[..running].iter().all(|mark| *mark == Mark::Succeeded));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn any_event_is_taken_or_refused_and_a_refused_one_changes_nothing(kinds in kinds(), words in words()) {
        let plan = story::plan(kinds);
        let mut events = story::story(&plan, "");
        let mut state = fold(&events).unwrap();
        for (word, step) in words {
            let before = state.clone();
            let event = event_of(&plan, word, step, &state);
            match state.apply(&event) {
                Ok(()) => events.push(event),
                Err(_) => prop_assert_eq!(&state, &before),
            }
            promises(&plan, &state);
            for stop in [false, true] {
                let _total = decide(&plan, &state, Now { at: state.last_at(), stop });
            }
        }
        prop_assert_eq!(fold(&events).unwrap(), state);
    }

    /// A driver with any luck whatever comes to an end or a rest in bounded time, and what it records is legal.
    #[test]
    fn every_walk_ends(kinds in kinds(), luck in prop::collection::vec(0..8_u8, 400)) {
        let plan = story::plan(kinds);
        let mut events = story::story(&plan, "");
        let mut state = fold(&events).unwrap();
        let mut at = state.last_at();
        for (turn, luck) in luck.iter().enumerate() {
            at += SignedDuration::from_millis(i64::from(*luck) * 40);
            let stop = *luck == 7;
            let decision = decide(&plan, &state, Now { at, stop });
            let wanted = match decision {
                Decision::Over(_) => break,
                Decision::Rest(_) => EventBody::Resumed { holder: "again".into() },
                other => answer(&plan, &state, other, *luck),
            };
            let event = Event { at, ..story::event(state.seq() + 1, 1, wanted) };
            state.apply(&event).unwrap_or_else(|error| panic!("turn {turn}: {error}"));
            events.push(event);
            promises(&plan, &state);
        }
        check_undone(&plan, &events, &state);
    }
}

/// What a driver may record for a decision, as luck has it.
fn answer(plan: &Plan, state: &State, decision: Decision, luck: u8) -> EventBody {
    let id = |step: usize| plan.steps()[step].id.clone();
    let failed = |step: usize| EventBody::Failed {
        step: id(step),
        class: if luck == 0 {
            pgteal_saga::fault::Class::Refused
        } else {
            pgteal_saga::fault::Class::Unknown
        },
        failure: story::failure(),
        attempt: state.attempts() + 1,
    };
    match decision {
        Decision::Confirm if luck == 1 => {
            let done = state.marks().iter().position(|m| *m == Mark::Succeeded);
            match done.filter(|index| plan.is_in_section(*index)) {
                Some(index) => EventBody::Lost { step: id(index), failure: story::failure() },
                None => EventBody::Confirmed,
            }
        }
        Decision::Confirm => EventBody::Confirmed,
        Decision::Begin { step, .. } if luck == 2 => failed(step),
        Decision::Begin { step, .. } => EventBody::Started { step: id(step) },
        Decision::Continue { step, .. } if luck == 3 && plan.steps()[step].kind == StepKind::Gate => {
            EventBody::GateWaiting { step: id(step), what: "approval".into() }
        }
        Decision::Continue { step, .. } if luck <= 1 => failed(step),
        Decision::Continue { step, .. } | Decision::PassGate { step } => {
            EventBody::Succeeded { step: id(step), facts: Default::default() }
        }
        Decision::Expire { step, elapsed_ms } => EventBody::Deadline { step: id(step), elapsed_ms },
        Decision::UnwindForStop => EventBody::UndoRequested { by: "stop".into() },
        Decision::BeginUndo { step } => EventBody::UndoStarted { step: id(step) },
        Decision::ContinueUndo { step, .. } if luck <= 1 => EventBody::UndoFailed {
            step: id(step),
            class: pgteal_saga::fault::Class::Unknown,
            failure: story::failure(),
            attempt: state.attempts() + 1,
        },
        Decision::ContinueUndo { step, .. } => EventBody::Undone { step: id(step) },
        Decision::Stick { step, doing, failure } => EventBody::Stuck { step: id(step), doing, failure },
        Decision::Stop => EventBody::Stopped,
        Decision::Finish(end) => EventBody::Finished { end },
        Decision::Rest(_) | Decision::Over(_) => panic!("{decision:?}"),
    }
}

/// An unwound run has undone every step it started, each after every later one.
fn check_undone(plan: &Plan, events: &[Event], state: &State) {
    if !matches!(state.phase(), Phase::Unwound(_)) {
        return;
    }
    let steps = |of: Doing| {
        events
            .iter()
            .filter_map(|event| match &event.body {
                EventBody::Started { step } if of == Doing::Apply => plan.index_of(step),
                EventBody::Undone { step } if of == Doing::Undo => plan.index_of(step),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    let undone = steps(Doing::Undo);
    assert!(undone.is_sorted_by(|one, two| one > two), "{undone:?}");
    assert!(steps(Doing::Apply).iter().all(|started| undone.contains(started)), "{undone:?}");
    assert!(matches!(events.last().unwrap().body, EventBody::Finished { end: End::Unwound }));
}
