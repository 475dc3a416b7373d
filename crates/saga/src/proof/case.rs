//! The cases of a walk: which fault at which step, and how the run must end.
//! Refuses to run them.

use std::fmt;

use crate::hooks::CrashPoint;
use crate::plan::Plan;
use crate::step::StepKind;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Nothing,
    /// Every `apply` is called twice.
    ApplyTwice,
    /// The run is unwound, and every `undo` is called twice.
    UndoTwice,
    /// A run that is done is undone.
    UndoDone,
    /// A driver with an old epoch begins.
    StaleStart,
    /// The driver dies; another resumes.
    Crash(CrashPoint),
    /// The driver dies; the operator undoes the run.
    CrashThenUndo(CrashPoint),
    /// The machine dies, with every record that was not synced; a driver resumes.
    PowerLoss(CrashPoint),
    /// The machine dies; the operator undoes the run.
    PowerLossThenUndo(CrashPoint),
    /// The run unwinds and the driver dies on the way back; another resumes.
    CrashInUndo(CrashPoint),
    /// `guard` refuses.
    RefuseGuard,
    /// `guard` refuses after a look at the step has said that it is done.
    RefuseGuardDone,
    /// `guard` does not come back, and what succeeded before it may not be in the journal yet.
    HangGuard,
    /// All of the effect is there when the step begins: it is not applied.
    DoneEarly,
    /// `apply` refuses before it did anything.
    RefuseBefore,
    /// `apply` does all and refuses then.
    RefuseAfter,
    /// `apply` refuses once, past the point of no return, where clients are held.
    RefuseOnce,
    /// `apply` refuses because a driver with a higher epoch is at work.
    RefuseStale,
    /// What stands there is not ours.
    Foreign,
    /// `apply` fails without an answer, each time, having done nothing.
    Unknown,
    /// `apply` fails without an answer once, having done all.
    UnknownOnce,
    /// `apply` says Ok and did nothing.
    Lie,
    /// `apply` is cut short when it has waited this many times, once: it is tried again.
    CutShort(u8),
    /// `apply` is cut short when it has waited this many times, and refuses: the run unwinds.
    CutThenRefuse(u8),
    /// Something of somebody else stands in the step's place ([`Bench::occupy`](super::Bench::occupy)).
    Occupied,
    /// The driver dies in the next step, and before another resumes the step's effect is lost
    /// ([`Bench::lose`](super::Bench::lose)).
    Lost,
    /// The same, but the driver dies before the step's success is in the journal.
    LostUnwritten,
    /// `apply` never comes back.
    Hang,
    /// The run unwinds and `undo` fails without an answer, each time.
    UndoUnknown,
    /// The run unwinds and `undo` says Ok and did nothing.
    UndoLie,
    /// The operator stops the run at a crash point.
    Stop(CrashPoint),
    /// Another driver takes the lease at a crash point.
    Overtaken(CrashPoint),
    /// The journal fails from a crash point on, and is well again later.
    JournalFails(CrashPoint),
}

impl Fault {
    fn name(self) -> String {
        match self {
            Self::Crash(point) => format!("crash, {point}"),
            Self::CrashThenUndo(point) => format!("crash then undo, {point}"),
            Self::PowerLoss(point) => format!("power loss, {point}"),
            Self::PowerLossThenUndo(point) => format!("power loss then undo, {point}"),
            Self::CrashInUndo(point) => format!("crash in undo, {point}"),
            Self::Overtaken(point) => format!("overtaken, {point}"),
            Self::Stop(point) => format!("stop, {point}"),
            Self::JournalFails(point) => format!("journal fails, {point}"),
            Self::CutShort(waits) => format!("cut short, {waits}"),
            Self::CutThenRefuse(waits) => format!("cut then refuse, {waits}"),
            other => format!("{other:?}"),
        }
    }
}

/// One case: a fault, at a step unless it concerns the whole run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The fault.
    pub fault: Fault,
    /// The step, by its place in the plan.
    pub step: Option<usize>,
    name: String,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Every case of a plan.
pub fn cases(plan: &Plan) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |fault: Fault, step: Option<usize>| {
        let place = step.map(|index| plan.steps()[index].id.as_str()).unwrap_or("the run");
        let name = format!("{} at {place}: {}", plan.kind(), fault.name());
        cases.push(Case { fault, step, name });
    };
    let way = Way::of(plan);
    for fault in [Fault::Nothing, Fault::ApplyTwice, Fault::UndoTwice, Fault::StaleStart] {
        add(fault, None);
    }
    if way.point.is_none() {
        add(Fault::UndoDone, None);
    }
    for (index, step) in plan.steps().iter().enumerate() {
        for fault in faults(&way, index, step.kind) {
            add(fault, Some(index));
        }
    }
    cases
}

fn faults(way: &Way, index: usize, kind: StepKind) -> Vec<Fault> {
    let mut faults = Vec::new();
    for point in CrashPoint::FORWARD {
        faults.extend([Fault::Crash(point), Fault::PowerLoss(point), Fault::Overtaken(point)]);
        if way.is_reversible(index) {
            faults.extend([Fault::CrashThenUndo(point), Fault::PowerLossThenUndo(point)]);
        }
    }
    faults.extend([Fault::RefuseGuard, Fault::RefuseGuardDone, Fault::RefuseBefore, Fault::RefuseAfter]);
    faults.extend([Fault::Foreign, Fault::Unknown, Fault::UnknownOnce]);
    let twice = [CrashPoint::Started, CrashPoint::Succeeded];
    faults.extend(twice.map(Fault::Stop));
    if kind != StepKind::Gate {
        faults.extend([Fault::Lie, Fault::DoneEarly]);
        faults.extend(CUTS.map(Fault::CutShort));
    }
    if way.is_reversible(index) && kind == StepKind::Effect {
        faults.extend(CUTS.map(Fault::CutThenRefuse));
        faults.push(Fault::Occupied);
    }
    if way.is_bounded(index) {
        if kind == StepKind::Effect {
            faults.push(Fault::LostUnwritten);
        }
        if kind == StepKind::Effect && way.is_bounded(index + 1) {
            faults.push(Fault::Lost);
        }
        faults.push(Fault::Hang);
    }
    if way.is_in_section(index) {
        faults.extend(twice.map(Fault::JournalFails));
    }
    if way.is_in_section(index) && !way.is_reversible(index) {
        faults.push(Fault::RefuseOnce);
    }
    faults.push(Fault::RefuseStale);
    if index > 0 && way.is_bounded(index - 1) && way.is_in_section(index) {
        faults.push(Fault::HangGuard);
    }
    if way.is_reversible(index) {
        faults.extend(CrashPoint::BACKWARD.map(Fault::CrashInUndo));
        faults.push(Fault::UndoUnknown);
        if kind.undo_is_observed() {
            faults.push(Fault::UndoLie);
        }
    }
    faults
}

/// After how many waits an `apply` is cut short.
const CUTS: [u8; 3] = [1, 2, 4];

/// Where in the plan things can still be taken back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    pub(super) point: Option<usize>,
    section: Option<(usize, usize)>,
}

impl Way {
    pub(super) fn of(plan: &Plan) -> Self {
        Self {
            point: plan.steps().iter().position(|step| step.kind == StepKind::PointOfNoReturn),
            section: plan.section_span(),
        }
    }

    /// Whether the run can unwind once the step has started.
    pub(super) fn is_reversible(&self, index: usize) -> bool {
        self.point.is_none_or(|point| index < point)
    }

    /// Whether the deadline is running while the step runs.
    pub(super) fn is_bounded(&self, index: usize) -> bool {
        self.is_reversible(index) && self.is_in_section(index)
    }

    /// Whether the step is inside the section.
    pub(super) fn is_in_section(&self, index: usize) -> bool {
        self.section.is_some_and(|(first, last)| (first..=last).contains(&index))
    }

    /// Whether the step's success is written with what comes next.
    pub(super) fn is_held_back(&self, index: usize) -> bool {
        self.is_in_section(index) && self.is_in_section(index + 1)
    }

    /// Whether a journal that fails from `point` of the step on fails while everything can still be taken back, and at
    /// another record than the start of the point of no return, of which nobody knows then whether it is there.
    pub(super) fn is_undone_unrecorded(&self, index: usize, point: CrashPoint) -> bool {
        self.is_bounded(index)
            && if self.is_held_back(index) {
                self.is_bounded(index + 1)
            } else {
                point == CrashPoint::Started
            }
    }
}
