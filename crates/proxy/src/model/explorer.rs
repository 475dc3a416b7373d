//! Runs a story in every order of its threads' steps, depth first. Two orders that leave every thread with the same
//! experience, and what they share with the same value, go on alike: only the first is followed. Refuses to know the story.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use shuttle::rand::RngCore;
use shuttle::scheduler::{Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, FailurePersistence, Runner};

/// One run of a story, as far as it has come.
#[derive(Default)]
struct Run {
    /// What each thread has seen: it does nothing that does not follow from this.
    seen: BTreeMap<usize, u64>,
    /// The value of each shared thing, in the order in which they were made.
    values: Vec<u64>,
    /// What a thread has made and will give up, and whose it is.
    lent: BTreeMap<u64, (usize, u64)>,
    made: u64,
    /// The first thread makes ready what the others need; nobody else runs.
    is_setup: bool,
    /// Told of a run that failed.
    steps: Option<Vec<(usize, String)>>,
    /// The rest of the run is of no interest.
    over: bool,
}

thread_local! {
    static RUN: RefCell<Run> = RefCell::default();
}

fn digest(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

fn me() -> usize {
    shuttle::current::get_current_task().map_or(0, usize::from)
}

/// A new shared thing.
pub(super) fn shared(value: &impl Hash) -> usize {
    let value = digest(value);
    RUN.with_borrow_mut(|run| {
        run.values.push(value);
        run.values.len() - 1
    })
}

/// Something new of the running thread's own, that others may touch.
pub(super) fn lend(value: &impl Hash) -> u64 {
    let (me, value) = (me(), digest(value));
    RUN.with_borrow_mut(|run| {
        run.made += 1;
        run.lent.insert(run.made, (me, value));
        run.made
    })
}

/// What was lent has this value now; or is gone.
pub(super) fn is_lent(thing: u64, value: Option<&impl Hash>) {
    let value = value.map(digest);
    RUN.with_borrow_mut(|run| match (value, run.lent.get_mut(&thing)) {
        (Some(value), Some((_, slot))) => *slot = value,
        (None, Some(_)) => drop(run.lent.remove(&thing)),
        (_, None) => {}
    });
}

/// From here on all that the first thread has made runs.
pub(super) fn set_up() {
    RUN.with_borrow_mut(|run| run.is_setup = false);
}

/// Whether this happens: it does, and it does not.
pub(super) fn may_happen(what: &str) -> bool {
    let happens = shuttle::rand::thread_rng().next_u64() == 1;
    saw(what, &happens);
    happens
}

/// Before each touch of a shared thing: anybody may run first.
pub(super) fn step() {
    if !RUN.with_borrow(|run| run.over) && !std::thread::panicking() {
        // Not a yield, which would wake a future that waits.
        shuttle::thread::sleep(Duration::ZERO);
    }
}

/// A shared thing has this value now.
pub(super) fn is_now(thing: usize, value: &impl Hash) {
    let value = digest(value);
    RUN.with_borrow_mut(|run| {
        // Runs end one after the other, but their last destructors may be late.
        if let Some(slot) = run.values.get_mut(thing) {
            *slot = value;
        }
    });
}

/// The running thread has seen this.
pub(super) fn saw(what: &str, result: &(impl Hash + std::fmt::Debug)) {
    let (me, what_and_result) = (me(), digest(&(what, result)));
    RUN.with_borrow_mut(|run| {
        if run.over {
            return;
        }
        let seen = run.seen.entry(me).or_default();
        *seen = digest(&(*seen, what_and_result));
        if let Some(steps) = &mut run.steps {
            steps.push((me, format!("{what}: {result:?}")));
        }
    });
}

/// All that the running thread has seen comes down to this: it remembers nothing else.
pub(super) fn stands(place: &impl Hash) {
    let (me, place) = (me(), digest(&(place, "place")));
    RUN.with_borrow_mut(|run| run.seen.insert(me, place));
}

/// Who could run at each step of the run that goes on, and who was chosen.
type Way = Vec<(Vec<TaskId>, usize)>;

thread_local! {
    static WAY: RefCell<Way> = const { RefCell::new(Vec::new()) };
}

struct Explorer {
    known: HashSet<u64>,
    /// Threads that do the same: which of them is where is all the same.
    alike: Range<usize>,
    at: usize,
    runs: usize,
    /// Only the run that failed, once more and told.
    again: bool,
}

impl Explorer {
    fn new(alike: Range<usize>, again: bool) -> Self {
        Self { known: HashSet::new(), alike, at: 0, runs: 0, again }
    }

    /// Who runs next where this run leaves what is known; nobody if it is known how it goes on.
    fn branch(&mut self, runnable: &[&Task]) -> Option<Vec<TaskId>> {
        let who: Vec<TaskId> = runnable.iter().map(|task| task.id()).collect();
        let ids: Vec<usize> = who.iter().map(|id| usize::from(*id)).collect();
        RUN.with_borrow(|run| {
            if run.is_setup {
                return Some(who[..1].to_vec());
            }
            let one = |id: usize, seen: u64| {
                let mut own: Vec<u64> =
                    run.lent.values().filter(|(of, _)| *of == id).map(|(_, value)| *value).collect();
                own.sort_unstable();
                digest(&(seen, ids.contains(&id), own))
            };
            let threads = run.seen.keys().copied().max().unwrap_or(0) + 1;
            let mut all: Vec<u64> =
                (0..threads).map(|id| one(id, run.seen.get(&id).copied().unwrap_or(0))).collect();
            if let Some(alike) = all.get_mut(self.alike.clone()) {
                alike.sort_unstable();
            }
            self.known.insert(digest(&(all, &run.values))).then_some(who)
        })
    }
}

impl Scheduler for Explorer {
    fn new_execution(&mut self) -> Option<Schedule> {
        self.runs += 1;
        if self.runs > 1 {
            if self.again {
                return None;
            }
            WAY.with_borrow_mut(|way| {
                while way.pop_if(|(who, chosen)| *chosen + 1 == who.len()).is_some() {}
                way.last_mut().map(|(_, chosen)| *chosen += 1)
            })?;
        }
        self.at = 0;
        RUN.set(Run { steps: self.again.then(Vec::new), is_setup: true, ..Run::default() });
        Some(Schedule::new(0))
    }

    fn next_task(&mut self, runnable: &[&Task], _: Option<TaskId>, _: bool) -> Option<TaskId> {
        let next = match WAY.with_borrow(|way| way.get(self.at).map(|(who, chosen)| who[*chosen])) {
            Some(next) => next,
            None => {
                let Some(who) = self.branch(runnable) else {
                    RUN.with_borrow_mut(|run| run.over = true);
                    return None;
                };
                let first = who[0];
                WAY.with_borrow_mut(|way| way.push((who, 0)));
                first
            }
        };
        self.at += 1;
        RUN.with_borrow_mut(|run| {
            // Also who saw nothing has come further.
            let seen = run.seen.entry(next.into()).or_default();
            *seen = digest(&(*seen, "ran"));
        });
        Some(next)
    }

    /// One of two: both are tried.
    fn next_u64(&mut self) -> u64 {
        let at = self.at;
        self.at += 1;
        WAY.with_borrow_mut(|way| {
            if at == way.len() {
                way.push((vec![TaskId::from(0), TaskId::from(1)], 0));
            }
            way[at].1 as u64
        })
    }
}

fn runner(alike: Range<usize>, again: bool) -> Runner<Explorer> {
    let mut config = Config::new();
    config.stack_size = 0x2_0000;
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    Runner::new(Explorer::new(alike, again), config)
}

/// Runs the story in every order; panics as the story does, and tells the steps that led there. Threads
/// that are alike are named by the order in which they were made, the first thread being 0. Answers how many runs it took.
pub(super) fn explore(alike: Range<usize>, story: impl Fn() + Send + Sync + 'static) -> usize {
    let story = Arc::new(story);
    let told = Arc::clone(&story);
    WAY.set(Vec::new());
    let failed = match catch_unwind(AssertUnwindSafe(|| runner(alike.clone(), false).run(move || story()))) {
        Ok(runs) => return runs,
        Err(failed) => failed,
    };
    let _ = catch_unwind(AssertUnwindSafe(|| runner(alike, true).run(move || told())));
    let mut text = String::new();
    for (who, step) in RUN.take().steps.unwrap_or_default() {
        let _ = writeln!(text, "  thread {who}: {step}");
    }
    eprintln!("the steps that led there:\n{text}");
    resume_unwind(failed)
}
