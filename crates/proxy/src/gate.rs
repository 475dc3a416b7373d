//! Owns the gate: whether a session may begin a transaction, on which side, and how many are inside.
//! Refuses to know sockets, messages and sessions.
//!
//! One 64-bit word is the whole truth that the hot path reads: closed or not, the side, the turn (how often the route
//! was changed) and the number of sessions inside. To enter is one compare-and-swap of that word, so closing it
//! and counting who is inside is one atomic step: a count of 0 after closing stays 0 until release, and nobody can
//! enter without learning the side that holds at that very instant.

#[path = "gate/bar.rs"]
mod bar;
#[path = "gate/place.rs"]
mod place;

use std::sync::atomic::{AtomicU64 as Count, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

// By its place and not by its name: the model of the gate (`model.rs`) puts itself between these and the gate.
use super::sync::{AtomicBool, AtomicU64, Instant, Mutex, MutexGuard, Notify, OwnedNotified, timeout_at};
use crate::histogram::Histogram;
use crate::route::Side;

pub use bar::Bar;
use bar::Bars;
pub(crate) use bar::Former;
pub use place::Waiting;
pub(crate) use place::{Before, Pass};

const CLOSED: u64 = 1 << 63;
const GREEN: u64 = 1 << 62;
const TURN_SHIFT: u32 = 32;
const TURN_MASK: u64 = (1 << 30) - 1;
const BUSY_MASK: u64 = (1 << 32) - 1;

/// Which side a transaction goes to, and the turn that tells two visits of the same side apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Course {
    /// The side.
    pub side: Side,
    /// How often the route has changed since the process began.
    pub turn: u32,
}

const fn course_of(word: u64) -> Course {
    let side = if word & GREEN == 0 { Side::Blue } else { Side::Green };
    Course { side, turn: ((word >> TURN_SHIFT) & TURN_MASK) as u32 }
}

/// What the gate is doing, as the control side sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Transactions begin freely.
    Flowing,
    /// No transaction begins.
    Held(Hold),
}

/// A hold and who asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The driver's epoch.
    pub epoch: u64,
    /// The run it drives, for people who look.
    pub run: String,
    /// When the gate opens by itself.
    pub deadline: Instant,
    /// When it closed.
    pub since: Instant,
}

/// What may happen to the gate.
#[derive(Clone, Debug)]
pub enum Event {
    /// Close, or extend the limit of the hold that is there.
    Hold {
        /// Who asks.
        epoch: u64,
        /// The run it drives.
        run: String,
        /// How long the hold may last from now.
        limit: Duration,
    },
    /// Change the side while held.
    Repoint {
        /// Who asks.
        epoch: u64,
        /// The side wanted.
        side: Side,
    },
    /// Open.
    Release {
        /// Who asks.
        epoch: u64,
    },
    /// The hold's own limit has come.
    Expire,
    /// The process is about to end: nobody may be left waiting.
    Shutdown,
}

/// What an event did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The gate closed just now; so many sessions are inside.
    Closed,
    /// It was closed already; the limit is the new one.
    Extended,
    /// The side changed.
    Repointed,
    /// The gate opened just now.
    Opened,
    /// Nothing to do: the world is as asked.
    Same,
}

/// Why an event was refused. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// Nobody may be held for now.
    #[error(transparent)]
    Barred(#[from] Bar),
    /// Clients are held, and whoever does it drives this process.
    #[error("clients are held by epoch {epoch} (run '{run}')")]
    Held {
        /// Who holds.
        epoch: u64,
        /// The run it drives.
        run: String,
    },
    /// A hold ended by its own limit, and whoever drives that switchover may come back.
    #[error("the hold by epoch {epoch} (run '{run}') came to its limit, and nobody has released since")]
    LeftOff {
        /// Who held.
        epoch: u64,
        /// The run it drives.
        run: String,
    },
    /// Somebody with a higher epoch drives this proxy.
    #[error("stale epoch {given}: epoch {highest} drives this proxy")]
    Stale {
        /// The epoch given.
        given: u64,
        /// The highest seen.
        highest: u64,
    },
    /// The step needs a hold by this epoch.
    #[error("clients are not held by epoch {epoch} (the gate is {state})")]
    NotHeld {
        /// The epoch given.
        epoch: u64,
        /// What the gate is instead.
        state: String,
    },
    /// Transactions are open.
    #[error("{busy} sessions are inside a transaction")]
    Busy {
        /// How many.
        busy: u32,
    },
    /// The route could not be made durable, so it was not changed.
    #[error("the route cannot be recorded: {0}")]
    NotRecorded(String),
}

/// The one transition table. Pure: it neither looks at the clock nor counts anybody.
fn next(phase: &Phase, route: Side, event: &Event, now: Instant) -> Result<(Phase, Effect), GateError> {
    use {Effect as E, Event as V, Phase as P};
    let not_held = |epoch: u64| {
        let state = match phase {
            P::Flowing => "flowing".to_owned(),
            P::Held(hold) => format!("held by epoch {}", hold.epoch),
        };
        Err(GateError::NotHeld { epoch, state })
    };
    match (phase, event) {
        (P::Flowing, V::Hold { epoch, run, limit }) => {
            let hold = Hold { epoch: *epoch, run: run.clone(), deadline: now + *limit, since: now };
            Ok((P::Held(hold), E::Closed))
        }
        (P::Held(held), V::Hold { epoch, run, limit }) => {
            let hold = Hold { epoch: *epoch, run: run.clone(), deadline: now + *limit, since: held.since };
            Ok((P::Held(hold), E::Extended))
        }
        (P::Flowing, V::Repoint { side, .. }) if *side == route => Ok((P::Flowing, E::Same)),
        (P::Held(_), V::Repoint { side, epoch }) if *side == route => {
            if matches!(phase, P::Held(hold) if hold.epoch == *epoch) {
                Ok((phase.clone(), E::Same))
            } else {
                not_held(*epoch)
            }
        }
        (P::Held(hold), V::Repoint { epoch, .. }) if hold.epoch == *epoch => {
            Ok((phase.clone(), E::Repointed))
        }
        (_, V::Repoint { epoch, .. }) => not_held(*epoch),
        (P::Held(_), V::Release { .. } | V::Shutdown) => Ok((P::Flowing, E::Opened)),
        (P::Held(hold), V::Expire) if hold.deadline <= now => Ok((P::Flowing, E::Opened)),
        (P::Held(_), V::Expire) | (P::Flowing, V::Release { .. } | V::Expire | V::Shutdown) => {
            Ok((phase.clone(), E::Same))
        }
    }
}

/// What the control side knows, as `SHOW STATE` tells it.
#[derive(Clone, Debug)]
pub struct View {
    /// Flowing or held.
    pub phase: Phase,
    /// The side new transactions go to.
    pub course: Course,
    /// The highest epoch seen.
    pub epoch: u64,
    /// Sessions inside a transaction.
    pub busy: u32,
    /// Sessions that wait before the gate.
    pub waiting: u64,
    /// Why the last hold ended; empty when there was none.
    pub last_release: String,
    /// How long the last hold lasted.
    pub last_hold: Duration,
}

#[derive(Debug)]
struct Control {
    phase: Phase,
    epoch: u64,
    last_release: String,
    last_hold: Duration,
    bars: Bars,
}

/// The gate itself. Shared by every session and the console.
#[derive(Debug)]
pub struct Gate {
    word: AtomicU64,
    /// The side may be fenced.
    at_risk: AtomicBool,
    waiting: Count,
    /// Bytes of clients that wait with them.
    waiting_bytes: Count,
    opened: Arc<Notify>,
    drained: Notify,
    deadline_changed: Notify,
    control: Mutex<Control>,
    /// How long holds lasted.
    holds: Histogram,
}

impl Gate {
    /// An open gate on a side, with the highest epoch that an earlier process saw.
    #[must_use]
    pub fn new(side: Side, epoch: u64) -> Self {
        let (last_release, last_hold, bars) = (String::new(), Duration::ZERO, Bars::default());
        let control = Control { phase: Phase::Flowing, epoch, last_release, last_hold, bars };
        Self {
            word: AtomicU64::new(if side == Side::Green { GREEN } else { 0 }),
            at_risk: AtomicBool::new(false),
            waiting: Count::new(0),
            waiting_bytes: Count::new(0),
            opened: Arc::new(Notify::new()),
            drained: Notify::new(),
            deadline_changed: Notify::new(),
            control: Mutex::new(control),
            holds: Histogram::default(),
        }
    }

    /// Goes inside, and says on which side; `None` when the gate is closed. Every success is paired with [`Gate::leave`].
    pub fn enter(&self) -> Option<Course> {
        let entered = self
            .word
            .fetch_update(SeqCst, SeqCst, |word| if word & CLOSED == 0 { Some(word + 1) } else { None });
        entered.ok().map(course_of)
    }

    /// Comes out again.
    pub fn leave(&self) {
        let before = self.word.fetch_sub(1, SeqCst);
        if before & CLOSED != 0 && before & BUSY_MASK == 1 {
            self.drained.notify_waiters();
        }
    }

    /// The side and turn at this instant.
    #[must_use]
    pub fn course(&self) -> Course {
        course_of(self.word.load(SeqCst))
    }

    /// Whether no transaction may begin.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.word.load(SeqCst) & CLOSED != 0
    }

    /// How many sessions are inside.
    #[must_use]
    pub fn busy(&self) -> u32 {
        (self.word.load(SeqCst) & BUSY_MASK) as u32
    }

    /// Told at the next opening. Get (and enable) it before [`Gate::enter`], so that an opening in between is not missed.
    pub fn opened(&self) -> OwnedNotified {
        Arc::clone(&self.opened).notified_owned()
    }

    /// Whether the side that transactions go to may be fenced: a hold is there or has come to its limit, so whoever drives the
    /// switchover may have left it so; or somebody met the fence. Until somebody releases.
    #[must_use]
    pub fn is_at_risk(&self) -> bool {
        self.at_risk.load(Relaxed)
    }

    /// Somebody met the fence.
    pub fn met_fence(&self) {
        self.at_risk.store(true, Relaxed);
    }

    /// Bytes that wait before the gate.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes.load(SeqCst)
    }

    /// Sessions that wait before the gate.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(SeqCst)
    }

    /// Waits until nobody is inside or `until` has come, and answers how many are left.
    pub async fn drained(&self, until: Instant) -> u32 {
        loop {
            let told = self.drained.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            let busy = self.busy();
            if busy == 0 || timeout_at(until, told).await.is_err() {
                return self.busy();
            }
        }
    }

    /// Checks an epoch and remembers it when it is the highest so far; answers whether it is new.
    ///
    /// # Errors
    /// [`GateError::Stale`] when a higher one was seen.
    pub fn claim(&self, epoch: u64) -> Result<bool, GateError> {
        Self::claimed(&mut self.lock(), epoch)
    }

    fn claimed(control: &mut Control, epoch: u64) -> Result<bool, GateError> {
        if epoch < control.epoch {
            return Err(GateError::Stale { given: epoch, highest: control.epoch });
        }
        let new = epoch > control.epoch;
        control.epoch = epoch;
        Ok(new)
    }

    /// Refuses unless this epoch holds the gate closed.
    ///
    /// # Errors
    /// [`GateError::Stale`] or [`GateError::NotHeld`].
    pub fn held_by(&self, epoch: u64) -> Result<(), GateError> {
        let mut control = self.lock();
        Self::claimed(&mut control, epoch)?;
        match &control.phase {
            Phase::Held(hold) if hold.epoch == epoch => Ok(()),
            Phase::Held(hold) => {
                Err(GateError::NotHeld { epoch, state: format!("held by epoch {}", hold.epoch) })
            }
            Phase::Flowing => Err(GateError::NotHeld { epoch, state: "flowing".into() }),
        }
    }

    /// Lets an event happen. `record` makes a new route durable; it runs before anybody can see the new route, and its
    /// failure leaves the old one.
    ///
    /// # Errors
    /// As [`GateError`]; nothing has changed then.
    pub fn drive(
        &self,
        event: &Event,
        now: Instant,
        record: impl FnOnce(Side, u64) -> Result<(), String>,
    ) -> Result<Effect, GateError> {
        let mut control = self.lock();
        if let Event::Hold { .. } = event {
            control.bars.check()?;
        }
        if let Event::Hold { epoch, .. } | Event::Repoint { epoch, .. } | Event::Release { epoch } = event {
            Self::claimed(&mut control, *epoch)?;
        }
        let (phase, effect) = next(&control.phase, self.course().side, event, now)?;
        if let Event::Release { .. } = event {
            // Before an opening, so that who comes in knows it.
            self.at_risk.store(false, Relaxed);
            control.bars.released();
        }
        match effect {
            Effect::Closed => {
                self.at_risk.store(true, Relaxed);
                self.word.fetch_or(CLOSED, SeqCst);
                self.deadline_changed.notify_one();
            }
            Effect::Extended => self.deadline_changed.notify_one(),
            Effect::Repointed => {
                let busy = self.busy();
                if busy != 0 {
                    return Err(GateError::Busy { busy });
                }
                record(self.course().side.other(), control.epoch).map_err(GateError::NotRecorded)?;
                self.turn_round();
            }
            Effect::Opened => {
                control.last_release = reason(event);
                if let Phase::Held(hold) = control.phase.clone() {
                    control.last_hold = now.saturating_duration_since(hold.since);
                    self.holds.observe(control.last_hold);
                    if matches!(event, Event::Expire) {
                        control.bars.left_off(hold);
                    }
                }
                self.word.fetch_and(!CLOSED, SeqCst);
                self.opened.notify_waiters();
                self.deadline_changed.notify_one();
            }
            Effect::Same => {}
        }
        control.phase = phase;
        Ok(effect)
    }

    /// The other side, one turn further. Closed and empty is the caller's business: nobody can enter meanwhile.
    fn turn_round(&self) {
        let flip = |word: u64| {
            let turn = ((word >> TURN_SHIFT) + 1) & TURN_MASK;
            Some((word & (CLOSED | GREEN | BUSY_MASK) | (turn << TURN_SHIFT)) ^ GREEN)
        };
        let _ = self.word.fetch_update(SeqCst, SeqCst, flip);
    }

    /// How long holds lasted, those that are over.
    pub(crate) const fn holds(&self) -> &Histogram {
        &self.holds
    }

    /// What the console shows.
    #[must_use]
    pub fn view(&self) -> View {
        let control = self.lock();
        View {
            phase: control.phase.clone(),
            course: self.course(),
            epoch: control.epoch,
            busy: self.busy(),
            waiting: self.waiting.load(SeqCst),
            last_release: control.last_release.clone(),
            last_hold: control.last_hold,
        }
    }

    /// Opens the gate when a hold's limit has come; runs as long as the proxy.
    pub async fn keep_limits(&self) {
        loop {
            self.keep_limit().await;
        }
    }

    /// Waits until the limit of the hold that is there has come, or another is to be kept.
    pub(crate) async fn keep_limit(&self) {
        let deadline = match &self.lock().phase {
            Phase::Held(hold) => Some(hold.deadline),
            Phase::Flowing => None,
        };
        let Some(deadline) = deadline else { return self.deadline_changed.notified().await };
        let changed = timeout_at(deadline, self.deadline_changed.notified()).await;
        if changed.is_err() && self.drive(&Event::Expire, Instant::now(), |_, _| Ok(())).is_ok() {
            tracing::warn!("the hold reached its own limit");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reason(event: &Event) -> String {
    match event {
        Event::Release { epoch } => format!("released by epoch {epoch}"),
        Event::Expire => "limit".into(),
        Event::Shutdown => "shutdown".into(),
        Event::Hold { .. } | Event::Repoint { .. } => String::new(),
    }
}
