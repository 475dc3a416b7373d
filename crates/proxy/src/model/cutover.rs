//! Stories of a cutover around the gate: sessions with their transactions, a driver that may vanish at any step, the hold's own
//! limit; and what must hold in each of them, whoever runs first. That all come to their end is a demand as well: a session that
//! waits for a wake-up that was lost is a deadlock.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::future::block_on;
use shuttle::thread;

use super::explorer::{explore, is_now, may_happen, saw, set_up, shared, stands, step};
use super::gate::{Before, Effect, Event, Gate, GateError, Pass, Phase};
use super::sync::{Instant, nudge_clock, start_clock, tick, time_is_waited_for};
use crate::route::Side;

/// After so long a hold ends by itself.
const LIMIT: Duration = Duration::from_millis(1);

/// How a driver drives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Driver {
    Whole,
    /// It may vanish before each of its acts.
    Vanishing,
    /// It neither waits for anybody nor asks whether its hold is in force.
    Hasty,
}

/// What is true of the servers, and who is where: the judge's own notes, touched together with what they are about.
#[derive(Debug)]
struct World {
    gate: Arc<Gate>,
    /// The side that the route says, since its record was made.
    route_is_green: AtomicBool,
    blue_is_fenced: AtomicBool,
    green_is_fenced: AtomicBool,
    inside: AtomicU32,
    /// When the hold may end by itself.
    deadline: Mutex<Option<Instant>>,
    /// Where all this is part of what a run has come to.
    notes: usize,
}

impl World {
    fn new(how: Driver) -> Arc<Self> {
        start_clock();
        Arc::new(Self {
            gate: Arc::new(Gate::new(Side::Blue, 0)),
            route_is_green: AtomicBool::new(false),
            blue_is_fenced: AtomicBool::new(false),
            green_is_fenced: AtomicBool::new(how != Driver::Hasty),
            inside: AtomicU32::new(0),
            deadline: Mutex::default(),
            notes: shared(&()),
        })
    }

    fn fence(&self, side: Side) -> &AtomicBool {
        if side == Side::Blue { &self.blue_is_fenced } else { &self.green_is_fenced }
    }

    /// After each change of what is noted.
    fn noted(&self) {
        let flags = [&self.route_is_green, &self.blue_is_fenced, &self.green_is_fenced];
        let flags = flags.map(|flag| flag.load(SeqCst));
        is_now(self.notes, &(flags, self.inside.load(SeqCst), *self.deadline.lock().unwrap()));
    }

    /// A client's message is sent to a server.
    fn send(&self, side: Side, keeps: bool) {
        step();
        assert_eq!(side == Side::Green, self.route_is_green.load(SeqCst), "sent to the side that was left");
        if self.fence(side).load(SeqCst) {
            let deadline = *self.deadline.lock().unwrap();
            assert!(
                deadline.is_some_and(|at| at <= Instant::now()),
                "sent to a fenced side within the hold's limit"
            );
            assert!(keeps, "nobody was told that the side may be fenced");
        }
        saw("sent to", &side);
    }

    /// A session with so many transactions of one message each: what `session/relay.rs` does at the gate.
    fn session(&self, transactions: u32) {
        let mut pass = Pass::outside(Arc::clone(&self.gate));
        let mut before: Option<Before> = None;
        for at in 0..transactions {
            let side = loop {
                if let Some(side) = pass.enter() {
                    self.inside.fetch_add(1, SeqCst);
                    self.noted();
                    break side;
                }
                stands(&("before", at, before.is_some()));
                if let Some(before) = &mut before {
                    block_on(std::future::poll_fn(|cx| before.poll_opened(cx)));
                } else {
                    before = Some(Before::new(&self.gate));
                }
                stands(&("asks", at));
            };
            stands(&("inside", at, side));
            before = None;
            // Before anything is sent: whether it is kept, to be said again.
            let keeps = self.gate.is_at_risk();
            self.send(side, keeps);
            stands(&("has sent", at));
            self.inside.fetch_sub(1, SeqCst);
            self.noted();
            pass.leave();
            stands(&("outside", at));
        }
    }

    fn drive(&self, event: &Event) -> Result<Effect, GateError> {
        let now = Instant::now();
        let effect = self.gate.drive(event, now, |side, _| {
            assert_eq!(self.inside.load(SeqCst), 0, "the route changes under somebody's transaction");
            self.route_is_green.store(side == Side::Green, SeqCst);
            self.noted();
            Ok(())
        });
        if effect == Ok(Effect::Closed) {
            *self.deadline.lock().unwrap() = Some(now + LIMIT);
            nudge_clock();
        }
        self.noted();
        saw("driven", &format!("{effect:?}"));
        effect
    }

    /// A driver that goes over to the other side.
    fn switch(&self, epoch: u64, how: Driver) -> Option<()> {
        let act = |name: &str| {
            if how == Driver::Vanishing && may_happen("the driver vanishes") {
                return None;
            }
            stands(&("driver", epoch, name));
            Some(())
        };
        act("hold")?;
        let to = if self.route_is_green.load(SeqCst) { Side::Blue } else { Side::Green };
        self.drive(&Event::Hold { epoch, run: String::new(), limit: LIMIT }).ok()?;
        if how == Driver::Hasty {
            let _ = self.drive(&Event::Repoint { epoch, side: to });
            return self.drive(&Event::Release { epoch }).map(drop).ok();
        }
        act("drain")?;
        let busy = block_on(self.gate.drained(Instant::now() + Duration::from_millis(1)));
        if busy > 0 {
            act("give up")?;
            return self.drive(&Event::Release { epoch }).map(drop).ok();
        }
        act("make sure")?;
        if self.gate.held_by(epoch).is_ok() {
            act("fence")?;
            self.fence(to.other()).store(true, SeqCst);
            self.noted();
            act("repoint")?;
            let repointed = self.drive(&Event::Repoint { epoch, side: to }).is_ok();
            act(if repointed { "unfence" } else { "take the fence back" })?;
            self.fence(if repointed { to } else { to.other() }).store(false, SeqCst);
            self.noted();
        }
        act("release")?;
        self.drive(&Event::Release { epoch }).map(drop).ok()
    }
}

/// Runs beside the story, for as long as it lasts.
fn beside(act: impl Future<Output = ()> + Send + 'static) {
    drop(shuttle::future::spawn(act));
}

fn opens_at_last(world: &World) {
    // Whoever vanished: it deadlocks if the gate does not open.
    world.session(1);
    let view = world.gate.view();
    assert_eq!((view.busy, view.waiting, world.gate.is_closed()), (0, 0, false), "{view:?}");
    assert_eq!(view.phase, Phase::Flowing);
}

/// Sessions, a driver, and a limit that may come at any moment.
fn switch_over(sessions: usize, transactions: u32, how: Driver) -> usize {
    explore(1..1 + sessions, move || {
        let world = World::new(how);
        let mut threads = Vec::new();
        for _ in 0..sessions {
            let world = Arc::clone(&world);
            threads.push(thread::spawn(move || world.session(transactions)));
        }
        let driver = Arc::clone(&world);
        threads.push(thread::spawn(move || _ = driver.switch(1, how)));
        let clock = Arc::clone(&world);
        beside(async move {
            loop {
                stands(&"the clock");
                let is_held = |now| clock.deadline.lock().unwrap().is_some_and(|at| at > now);
                time_is_waited_for(is_held).await;
                tick();
                let _ = clock.drive(&Event::Expire);
            }
        });
        set_up();
        for thread in threads.into_iter().rev() {
            thread.join().unwrap();
        }
        opens_at_last(&world);
    })
}

#[test]
fn no_wake_up_is_lost_and_nothing_goes_to_the_side_that_was_left() {
    for (sessions, transactions, how) in
        [(1, 1, Driver::Hasty), (1, 2, Driver::Vanishing), (2, 1, Driver::Whole)]
    {
        let runs = switch_over(sessions, transactions, how);
        println!("{sessions} sessions of {transactions} transactions: {runs} runs");
    }
}

/// The gate's own keeper of limits, while a driver holds, holds for longer, and releases, or vanishes before either.
#[test]
fn every_hold_ends() {
    let runs = explore(0..0, || {
        let world = World::new(Driver::Whole);
        let driver = Arc::clone(&world);
        let driver = thread::spawn(move || {
            for act in ["hold", "hold for longer", "release"] {
                if may_happen("the driver vanishes") {
                    break;
                }
                let release = act == "release";
                let hold = Event::Hold { epoch: 1, run: String::new(), limit: LIMIT };
                let _ = driver.drive(if release { &Event::Release { epoch: 1 } } else { &hold });
                stands(&act);
            }
        });
        let keeper = Arc::clone(&world);
        beside(async move {
            loop {
                stands(&"the keeper of the limit");
                keeper.gate.keep_limit().await;
            }
        });
        beside(async {
            loop {
                stands(&"the clock");
                time_is_waited_for(|_| false).await;
                tick();
            }
        });
        set_up();
        driver.join().unwrap();
        opens_at_last(&world);
    });
    println!("{runs} runs");
}
