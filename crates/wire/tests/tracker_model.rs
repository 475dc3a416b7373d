//! The transaction tracker against a small server that follows the rules of `PostgresMain`: random programs, random
//! interleaving of forwarding, execution and delivery, with the gate closing at a random moment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;

use pgteal_wire::tracker::{Fate, Kind, Reply, Tracker};
use proptest::prelude::*;

/// What a statement does when the server runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Select,
    Empty,
    Suspend,
    Begin,
    Commit,
    Fail,
    CopyIn,
    /// CopyInResponse, then an error before any more input is read: a BEFORE STATEMENT trigger that raises.
    CopyInFailsAtOnce,
    /// An error at the first CopyData.
    CopyInFailsOnData,
    CopyOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Message {
    tag: u8,
    effect: Effect,
    /// Sent after the gate began to close.
    late: bool,
}

fn message(tag: u8, effect: Effect) -> Message {
    Message { tag, effect, late: false }
}

#[derive(Debug, Default)]
struct Server {
    input: VecDeque<Message>,
    output: VecDeque<(u8, u8)>,
    status: Status,
    /// Extended messages ran and no Sync has followed: a transaction is open, implicitly or not.
    unsynced: bool,
    skipping: bool,
    copy: Option<(bool, Effect)>,
    dead: bool,
    /// A COPY failed between its response and the next read: from outside its Sync cannot be placed.
    ambiguous: bool,
    /// A message sent after the gate began to close started a transaction on an idle session.
    leaked: Option<Message>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Status {
    #[default]
    Idle,
    Open,
    Failed,
}

impl Server {
    fn send(&mut self, tag: u8) {
        self.output.push_back((tag, 0));
    }

    fn ready(&mut self) {
        self.unsynced = false;
        let status = match self.status {
            Status::Idle => b'I',
            Status::Open => b'T',
            Status::Failed => b'E',
        };
        self.output.push_back((b'Z', status));
    }

    fn fail(&mut self, extended: bool) {
        self.send(b'E');
        self.copy = None;
        if self.status == Status::Open {
            self.status = Status::Failed;
        }
        if extended {
            self.skipping = true;
        } else {
            self.ready();
        }
    }

    fn step(&mut self) {
        let Some(message) = self.input.pop_front() else { return };
        if self.dead {
            return;
        }
        match (self.copy, message.tag) {
            (Some(copy), tag) => self.copy_step(copy, tag),
            (None, b'S') => {
                self.skipping = false;
                if message.effect == Effect::Fail && self.unsynced {
                    // A deferred constraint: the commit itself fails.
                    self.send(b'E');
                    if self.status == Status::Open {
                        self.status = Status::Failed;
                    }
                }
                self.ready();
            }
            (None, b'H' | b'd' | b'c' | b'f') => {}
            (None, _) if self.skipping => {}
            (None, tag) => {
                if message.late && self.status == Status::Idle && !self.unsynced {
                    self.leaked = Some(message);
                }
                self.run(tag, message.effect);
            }
        }
    }

    fn copy_step(&mut self, (extended, effect): (bool, Effect), tag: u8) {
        match tag {
            b'S' | b'H' => {}
            b'd' if effect == Effect::CopyInFailsOnData => self.fail(extended),
            b'd' => {}
            b'f' => self.fail(extended),
            b'c' => {
                self.copy = None;
                self.send(b'C');
                if !extended {
                    self.ready();
                }
            }
            // Protocol synchronization is lost: FATAL.
            _ => self.dead = true,
        }
    }

    fn run(&mut self, tag: u8, effect: Effect) {
        let extended = tag != b'Q' && tag != b'F';
        self.unsynced |= extended;
        let refused =
            self.status == Status::Failed && effect != Effect::Commit && matches!(tag, b'Q' | b'E' | b'F');
        if effect == Effect::Fail || refused {
            return self.fail(extended);
        }
        match tag {
            b'P' => self.send(b'1'),
            b'B' => self.send(b'2'),
            b'C' => self.send(b'3'),
            b'D' if effect == Effect::Empty => self.send(b'n'),
            b'D' => {
                self.send(b't');
                self.send(b'T');
            }
            b'F' => {
                self.send(b'V');
                self.ready();
            }
            _ => self.execute(extended, effect),
        }
    }

    fn execute(&mut self, extended: bool, effect: Effect) {
        match effect {
            Effect::Begin => self.status = Status::Open,
            Effect::Commit => self.status = Status::Idle,
            Effect::CopyIn | Effect::CopyInFailsOnData => {
                self.send(b'G');
                self.copy = Some((extended, effect));
                return;
            }
            Effect::CopyInFailsAtOnce => {
                self.send(b'G');
                self.ambiguous |= extended;
                return self.fail(extended);
            }
            Effect::CopyOut => {
                for tag in *b"Hddc" {
                    self.send(tag);
                }
            }
            Effect::Select => {
                if !extended {
                    self.send(b'T');
                }
                self.send(b'D');
            }
            _ => {}
        }
        match effect {
            Effect::Empty => self.send(b'I'),
            Effect::Suspend if extended => self.send(b's'),
            _ => self.send(b'C'),
        }
        if !extended {
            self.ready();
        }
    }

    fn idle(&self) -> bool {
        self.status == Status::Idle && !self.unsynced && !self.skipping && self.copy.is_none() && !self.dead
    }
}

fn effect() -> impl Strategy<Value = Effect> {
    prop_oneof![
        6 => Just(Effect::Select),
        1 => Just(Effect::Empty),
        1 => Just(Effect::Suspend),
        3 => Just(Effect::Begin),
        3 => Just(Effect::Commit),
        2 => Just(Effect::Fail),
        1 => Just(Effect::CopyOut),
    ]
}

/// Small pieces that clients send in one go; COPY as libpq does it, with its two Syncs.
fn piece() -> impl Strategy<Value = Vec<Message>> {
    let copy =
        prop_oneof![Just(Effect::CopyIn), Just(Effect::CopyInFailsOnData), Just(Effect::CopyInFailsAtOnce)];
    let plain = |tags: &'static [u8]| {
        move |effect: Effect| tags.iter().map(|tag| message(*tag, effect)).collect::<Vec<_>>()
    };
    let harmless = |tag: u8| message(tag, Effect::Select);
    prop_oneof![
        4 => effect().prop_map(plain(b"Q")),
        1 => effect().prop_map(plain(b"F")),
        3 => effect().prop_map(move |e| {
            vec![harmless(b'P'), harmless(b'B'), harmless(b'D'), message(b'E', e), harmless(b'S')]
        }),
        2 => effect().prop_map(move |e| vec![harmless(b'B'), message(b'E', e)]),
        1 => effect().prop_map(plain(b"P")),
        1 => effect().prop_map(plain(b"C")),
        2 => effect().prop_map(plain(b"S")),
        1 => Just(vec![harmless(b'H')]),
        1 => Just(vec![harmless(b'd')]),
        1 => Just(vec![harmless(b'c')]),
        2 => (copy.clone(), any::<bool>()).prop_map(move |(e, ok)| {
            vec![message(b'Q', e), harmless(b'd'), harmless(if ok { b'c' } else { b'f' })]
        }),
        2 => (copy, any::<bool>()).prop_map(move |(e, ok)| {
            let end = if ok { b'c' } else { b'f' };
            let mut all: Vec<_> = b"PB".iter().map(|t| harmless(*t)).collect();
            all.push(message(b'E', e));
            all.extend([b'S', b'd', end, b'S'].map(harmless));
            all
        }),
    ]
}

fn program() -> impl Strategy<Value = Vec<Message>> {
    proptest::collection::vec(piece(), 0..8).prop_map(|pieces| pieces.concat())
}

struct World {
    client: VecDeque<Message>,
    server: Server,
    tracker: Tracker,
    closing: bool,
    forwarded: usize,
}

impl World {
    fn new(program: Vec<Message>) -> Self {
        Self {
            client: program.into(),
            server: Server::default(),
            tracker: Tracker::new(),
            closing: false,
            forwarded: 0,
        }
    }

    fn forward(&mut self) -> bool {
        let Some(next) = self.client.front().copied() else { return false };
        if self.closing && !self.tracker.may_pass(next.tag) {
            return false;
        }
        self.client.pop_front();
        self.tracker.client(next.tag);
        self.forwarded += 1;
        self.server.input.push_back(Message { late: self.closing, ..next });
        true
    }

    fn deliver(&mut self) -> bool {
        let Some((tag, status)) = self.server.output.pop_front() else { return false };
        self.tracker.server(tag, &[status]);
        true
    }

    fn settle(&mut self) {
        loop {
            let had_input = !self.server.input.is_empty();
            self.server.step();
            if !self.deliver() && !had_input {
                return;
            }
            self.check();
        }
    }

    /// A boundary is claimed only when the server can have nothing of the session under way.
    fn check(&self) {
        if !self.tracker.at_boundary() {
            return;
        }
        let harmless: &[u8] = if self.server.ambiguous { b"SHdcf" } else { b"Hdcf" };
        assert!(self.server.idle(), "boundary claimed, server {:?}", self.server);
        assert!(self.server.input.iter().all(|m| harmless.contains(&m.tag)), "{:?}", self.server);
        let leftover = if self.server.ambiguous { &b"Z"[..] } else { b"" };
        assert!(self.server.output.iter().all(|(tag, _)| leftover.contains(tag)), "{:?}", self.server);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_boundary_is_claimed_exactly_when_there_is_one(
        program in program(),
        schedule in proptest::collection::vec(0u8..3, 0..120),
    ) {
        let mut world = World::new(program);
        for choice in schedule {
            match choice {
                0 => { world.forward(); }
                1 => world.server.step(),
                _ => { world.deliver(); }
            }
            world.check();
        }
        world.settle();
        if !world.server.dead {
            prop_assert!(!world.tracker.lost() || world.server.ambiguous);
            if !world.tracker.lost() {
                prop_assert_eq!(world.tracker.at_boundary(), world.server.idle());
                prop_assert!(!world.server.idle() || world.server.ambiguous || world.tracker.outstanding() == 0);
            }
        }
        prop_assert_eq!(world.tracker.fresh(), world.forwarded == 0);
    }

    #[test]
    fn a_closing_gate_lets_finish_and_never_lets_begin(
        program in program(),
        before in proptest::collection::vec(0u8..3, 0..60),
        after in proptest::collection::vec(0u8..3, 0..60),
    ) {
        let mut world = World::new(program);
        let mut held = false;
        for (closing, choice) in before.into_iter().map(|c| (false, c)).chain(after.into_iter().map(|c| (true, c))) {
            world.closing = closing;
            held |= closing && world.tracker.at_boundary();
            match choice {
                0 => prop_assert!(!(world.forward() && held), "a message passed after the hold"),
                1 => world.server.step(),
                _ => { world.deliver(); }
            }
            world.check();
        }
        world.closing = true;
        loop {
            world.settle();
            if !world.forward() {
                break;
            }
        }
        prop_assert_eq!(world.server.leaked, None);
        // A client that waits in the gate waits at a boundary: nobody hangs.
        if !world.client.is_empty() && !world.server.dead && !world.tracker.lost() {
            prop_assert!(world.tracker.at_boundary(), "{:?}", world.tracker);
        }
    }
}

/// Feeds `>x` as client and `<x` as server messages (`<Z` followed by a status); checks the boundary after each.
#[track_caller]
fn trace(steps: &str, want: &str) -> Tracker {
    let mut tracker = Tracker::new();
    let mut got = String::new();
    for step in steps.split_whitespace() {
        let bytes = step.as_bytes();
        match bytes[0] {
            b'>' => {
                tracker.client(bytes[1]);
            }
            _ => {
                tracker.server(bytes[1], &bytes[2..]);
            }
        }
        got.push(if tracker.at_boundary() { '|' } else { '.' });
    }
    assert_eq!(got, want, "{steps}");
    tracker
}

#[test]
fn traces() {
    trace(">Q <T <D <C <ZI", "....|");
    trace(">Q <C <ZT >Q <C <ZI", ".....|");
    trace(">Q <E <ZE >Q <C <ZI", ".....|");
    trace(">P >B >E <1 <2 <C >S <ZI", ".......|");
    trace(">P >B >E >S <E <ZI", ".....|");
    trace(">P <E >B >E >Q >S <ZI", "......|");
    // Three units in one go, the second fails.
    trace(">P >B >E >S >B >E >S >Q <1 <2 <C <ZI <2 <E <ZI <C <ZI", "................|".get(..17).unwrap());
    // COPY as libpq does it over the extended protocol: the first Sync is swallowed.
    trace(">P >B >E >S <1 <2 <G >d >c >S <C <ZI", "...........|");
    // An eager client that does not wait for CopyInResponse.
    trace(">P >B >E >d >c >S <1 <2 <G <C <ZI", "..........|");
    // COPY refused before it starts: the first Sync is answered, the second too.
    trace(">P >B >E >S <1 <2 <E <ZI >S <ZI", ".......|.|");
    trace(">Q <G >d >c <C <ZI", ".....|");
    trace(">Q <G >d <E <ZI >d >c", "....|||");
    // START_REPLICATION and its end.
    trace(">Q <W >d <d >c <c <C <ZI", ".......|");
    // An asynchronous notice, parameter and notification change nothing.
    trace("<N <S <A >Q <N <C <ZI", "|||...|");
    trace(">X", "|");
    // A bare Sync and a Flush.
    trace(">S <ZI >H", ".||");
}

#[test]
fn what_the_closing_gate_lets_pass() {
    let pass = |steps: &str, tags: &[u8]| {
        let mut tracker = Tracker::new();
        for step in steps.split_whitespace() {
            match step.as_bytes() {
                [b'>', tag] => {
                    tracker.client(*tag);
                }
                [b'<', tag, rest @ ..] => {
                    tracker.server(*tag, rest);
                }
                _ => panic!("{step}"),
            }
        }
        String::from_utf8(tags.iter().copied().filter(|tag| tracker.may_pass(*tag)).collect()).unwrap()
    };
    let all = b"QFPBDECSHdcfX";
    for (steps, want) in [
        ("", "X"),
        (">Q", "HdcfX"),
        (">Q <C <ZT", "QFPBDECSHdcfX"),
        (">Q <C <ZT >Q", "HdcfX"),
        (">P", "QFPBDECSHdcfX"),
        (">P >S", "HdcfX"),
        (">P <E", "QFPBDECSHdcfX"),
        (">Q <G", "QFPBDECSHdcfX"),
        (">Q <C <ZI", "X"),
    ] {
        assert_eq!(pass(steps, all), want, "{steps}");
    }
}

#[test]
fn the_ledger_learns_which_parses_never_happened() {
    let mut tracker = Tracker::new();
    for tag in *b"PBEPCS" {
        assert_eq!(tracker.client(tag), Fate::Taken);
    }
    assert_eq!(tracker.server(b'1', b""), Reply::Completed(Kind::Parse));
    assert_eq!(tracker.server(b'E', b""), Reply::Skipped { parses: 1, closes: 1 });
    assert!(matches!(tracker.server(b'Z', b"I"), Reply::UnitEnded(_)));
    tracker.client(b'P');
    assert_eq!(tracker.server(b'E', b""), Reply::Skipped { parses: 1, closes: 0 });
    assert_eq!(tracker.client(b'P'), Fate::Ignored);
    assert_eq!(tracker.client(b'S'), Fate::Taken);
}

#[test]
fn a_surplus_ready_for_query_never_ends_a_running_query() {
    // COPY failed at once: its Sync is answered, so is the one after CopyDone; a query follows before the second answer.
    let mut tracker = trace(">P >B >E >S <1 <2 <G >d >c >S <E <ZI >Q", "...........|.");
    assert_eq!(tracker.server(b'Z', b"I"), Reply::Stray);
    assert!(!tracker.at_boundary());
    tracker.server(b'C', b"");
    tracker.server(b'Z', b"I");
    assert!(tracker.at_boundary() && !tracker.lost());
}

#[test]
fn nonsense_from_a_server_is_never_a_boundary_again() {
    for steps in [">Q <1", ">P >S <ZI", ">Q <C <ZX", "<G"] {
        let mut tracker = Tracker::new();
        for step in steps.split_whitespace() {
            match step.as_bytes() {
                [b'>', tag] => {
                    tracker.client(*tag);
                }
                [_, tag, rest @ ..] => {
                    tracker.server(*tag, rest);
                }
                _ => panic!("{step}"),
            }
        }
        assert!(tracker.lost() && !tracker.at_boundary(), "{steps}");
    }
}
