//! Owns the second try: a client's first words of a transaction, kept while its server may be fenced or its prepared statements
//! may be stale, until their answer shows that they are done with. When a server refuses them for a reason that is the
//! switchover's and not the client's, the client is not told: they are put back before the gate, and said again.
//!
//! What may be said again is the beginning of a transaction of whose answer nothing was shown but that the server had read it:
//! no row, no command but `BEGIN`. What of that was shown is not shown twice. Refuses to know sockets.

use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pgteal_wire::frame::Frames;
use pgteal_wire::message::report::Fields;
use pgteal_wire::message::tag::{back, front};
use pgteal_wire::message::{put, put_cstr};
use tokio::time::Sleep;

use super::statements::name_of;
use super::text::in_word;
use crate::gate::Course;

/// Bytes of a transaction's beginning that are kept.
const MOST: usize = 64 * 1024;
/// Messages that a client may be shown of an answer that is not its own yet.
const MOST_SHOWN: usize = 1024;
/// Between two tries on a server that stays fenced: at first, and in the end.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// How the fence's refusals begin, and the function that says them (`crates/postgres/src/fence.rs`); nobody translates either.
const FENCED: &str = "pgteal: this server is fenced";
const FENCE: &[u8] = b"pgteal.fence()";
/// The field of an error that tells where it came up, innermost first, one line for each function and each statement of one
/// (PostgreSQL documentation, "Error and Notice Message Fields").
const CONTEXT: u8 = b'W';
/// The server's function that finds out that a statement's result is of other types than it was, and the field of an error
/// that names it (PostgreSQL documentation, "Error and Notice Message Fields").
const REVALIDATE: (u8, &[u8]) = (b'R', b"RevalidateCachedQuery");

/// Why a server refused what another try may bring through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Writes are fenced.
    Fence,
    /// The session is read-only by default, because it began under the fence.
    ReadOnly,
    /// A prepared statement's result is of other types than when it was parsed.
    Plan,
}

/// What is true of a session when its server refuses something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// It is read-only by default, and did not ask for that.
    pub(super) read_only_by_fence: bool,
    /// What the server was at is a plain write.
    pub(super) writes: bool,
    /// Among what is bound are statements that were carried to this server and not bound there yet.
    pub(super) binds_carried: bool,
}

/// Where it stands.
#[derive(Debug)]
enum Stage {
    /// The server has it.
    Said,
    /// The server has refused it, with this message; the rest of its answer is for nobody.
    Refused { why: Refusal, error: Vec<u8> },
    /// The answer is over.
    Over(Refusal),
    /// It waits before the gate.
    Back { until: Pin<Box<Sleep>>, course: Course },
    /// It may go.
    Goes,
}

/// The beginning of one transaction.
#[derive(Debug)]
pub(super) struct Again {
    stage: Stage,
    said: Vec<u8>,
    /// Bytes of it that are kept, at most.
    most: usize,
    /// The client waits for answers before the unit's end.
    flushed: bool,
    /// The tags of what the client was shown, and how many of them came again.
    shown: Vec<u8>,
    at: usize,
    /// When it was refused first, and how often it was.
    since: Option<Instant>,
    tries: u32,
    /// Whatever is answered now is the client's.
    last: bool,
    /// What the client says next waits for this one's answer.
    pub(super) alone: bool,
    /// The client has asked for its cancel while a server had it.
    pub(super) cancelled: bool,
}

impl Again {
    pub(super) fn new(alone: bool) -> Self {
        Self {
            stage: Stage::Said,
            said: Vec::new(),
            most: MOST,
            flushed: false,
            shown: Vec::new(),
            at: 0,
            since: None,
            tries: 0,
            last: false,
            alone,
            cancelled: false,
        }
    }

    /// A part of a client's message passes. False when it is too much to be kept.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> bool {
        if self.said.len() + bytes.len() > self.most {
            return false;
        }
        self.said.extend_from_slice(bytes);
        true
    }

    /// The client asks for what there is of the answer.
    pub(super) fn flush(&mut self) {
        self.flushed = true;
    }

    /// What is kept.
    pub(super) fn said(&self) -> &[u8] {
        &self.said
    }

    /// The statements that are bound by name, in their order.
    pub(super) fn binds(&self) -> impl Iterator<Item = &[u8]> {
        let frames = Frames::new(&self.said, usize::MAX).flatten();
        frames.filter(|frame| frame.tag == front::BIND).map(|frame| bound(frame.body()))
    }

    /// How many of them are known to be bound.
    pub(super) fn bound(&self) -> usize {
        self.shown.iter().filter(|tag| **tag == back::BIND_COMPLETE).count()
    }

    /// Whether its transaction was begun before it was refused, as far as the client knows.
    pub(super) fn has_begun(&self) -> bool {
        self.shown.contains(&back::COMMAND_COMPLETE)
    }

    /// Whether the server's refusal is for nobody.
    pub(super) const fn is_refused(&self) -> bool {
        matches!(self.stage, Stage::Refused { .. })
    }

    /// The refusal whose answer is over, to be taken back.
    pub(super) const fn over(&self) -> Option<Refusal> {
        match self.stage {
            Stage::Over(why) => Some(why),
            _ => None,
        }
    }

    /// Whether it is back before the gate, or about to be.
    pub(super) const fn is_back(&self) -> bool {
        matches!(self.stage, Stage::Over(_) | Stage::Back { .. } | Stage::Goes)
    }

    /// Whether an answer's error is one that the client need not see. `ends` says that the server has the whole unit.
    ///
    /// It has to come from the statement itself. What runs in a function may come behind other things that the function did, and
    /// not all of those end with the transaction.
    pub(super) fn refusal(&self, body: &[u8], ends: bool, standing: Standing) -> Option<Refusal> {
        if self.last || !matches!(self.stage, Stage::Said) || (self.flushed && !ends) {
            return None;
        }
        let fields = Fields::parse(body).ok()?;
        let context = fields.get(CONTEXT);
        match fields.sqlstate() {
            "25006" if is_fences(&fields) => {
                let is_direct = context.is_some_and(|context| !context.contains(&b'\n'));
                (standing.writes && is_direct).then_some(Refusal::Fence)
            }
            "25006" if standing.read_only_by_fence && standing.writes && context.is_none() => {
                Some(Refusal::ReadOnly)
            }
            "0A000" if standing.binds_carried && context.is_none() => {
                (fields.get(REVALIDATE.0) == Some(REVALIDATE.1)).then_some(Refusal::Plan)
            }
            _ => None,
        }
    }

    /// It was refused, by this message.
    pub(super) fn refused(&mut self, why: Refusal, error: &[u8]) {
        self.stage = Stage::Refused { why, error: error.to_vec() };
        self.since.get_or_insert_with(Instant::now);
    }

    /// A message of the server's answer; `None` when by it the answer is the client's, else whether it is for nobody.
    pub(super) fn heard(&mut self, tag: u8, body: &[u8]) -> Option<bool> {
        if matches!(tag, back::PARAMETER_STATUS | back::NOTIFICATION) {
            return Some(false);
        }
        match (&self.stage, tag) {
            (Stage::Refused { why, .. }, back::READY_FOR_QUERY) => self.stage = Stage::Over(*why),
            (Stage::Refused { .. }, _) => {}
            (Stage::Said, _) if tells_nothing(tag, body) => {
                if let Some(shown) = self.shown.get(self.at) {
                    let is_same = kind(*shown) == kind(tag);
                    self.at += 1;
                    return is_same.then_some(true);
                }
                // A cancel was for what came before this.
                self.cancelled &= tag != back::READY_FOR_QUERY;
                self.shown.push(tag);
                self.at += 1;
                return (self.at <= MOST_SHOWN).then_some(false);
            }
            (Stage::Said, _) => return None,
            _ => return Some(false),
        }
        Some(true)
    }

    /// What the server had refused is more than can be kept: the refusal, for the client.
    pub(super) fn give_up(self) -> Vec<u8> {
        match self.stage {
            Stage::Refused { error, .. } => error,
            _ => Vec::new(),
        }
    }

    /// It goes back before the gate: what was said. It waits there for a change of the course, or a while, which ends when
    /// `limit` has passed since the first refusal; nothing else changes when it is not the fence that refused it.
    /// `mended` says that there is nothing left to be done about it but to say it again.
    pub(super) fn take_back(
        &mut self,
        why: Refusal,
        mended: bool,
        course: Course,
        limit: Duration,
    ) -> Vec<u8> {
        let pause = match why {
            Refusal::Plan => Duration::ZERO,
            _ => (PAUSES.0 * 2_u32.saturating_pow(self.tries.min(10))).min(PAUSES.1),
        };
        let left = limit.saturating_sub(self.since.map(|since| since.elapsed()).unwrap_or_default());
        self.alone = true;
        let is_plan = why == Refusal::Plan;
        self.tries += u32::from(mended || !is_plan);
        // A plan is made anew once; when that did not help it is not ours to mend.
        self.last = if is_plan { self.tries > 1 } else { left.is_zero() };
        self.stage = Stage::Back { until: Box::pin(tokio::time::sleep(pause.min(left))), course };
        self.close_what_was_parsed();
        std::mem::take(&mut self.said)
    }

    /// A statement that was parsed under a name is there, and outlasts its transaction; so it is closed before it is parsed
    /// again, and the client hears of neither.
    fn close_what_was_parsed(&mut self) {
        let (mut said, mut shown) = (Vec::with_capacity(self.said.len()), Vec::new());
        let mut answers = self.shown.iter().copied().peekable();
        let mut closed = None;
        for frame in Frames::new(&self.said, usize::MAX).flatten() {
            let name = name_of(frame.body());
            if frame.tag == front::PARSE {
                // Everything before it was answered before it.
                while let Some(tag) = answers.next_if(|tag| *tag != back::PARSE_COMPLETE) {
                    shown.push(tag);
                }
                if answers.next().is_some() {
                    if !name.is_empty() && closed != Some(name) {
                        put_close(&mut said, name);
                        shown.push(back::CLOSE_COMPLETE);
                    }
                    shown.push(back::PARSE_COMPLETE);
                }
            }
            let is_close = frame.tag == front::CLOSE && frame.body().first() == Some(&b'S');
            closed = is_close.then(|| name_of(frame.body().get(1..).unwrap_or_default()));
            said.extend_from_slice(frame.whole);
        }
        shown.extend(answers);
        // What is said again is kept again, with the closes.
        self.most = MOST.max(said.len());
        (self.said, self.shown) = (said, shown);
    }

    /// Whether it may go now: the course has changed, or it has waited for long enough.
    pub(super) fn may_go(&self, course: Course) -> bool {
        match &self.stage {
            Stage::Back { course: left, .. } => *left != course,
            Stage::Over(_) => false,
            _ => true,
        }
    }

    /// The time that it waits, if it does.
    pub(super) const fn waits(&mut self) -> Option<&mut Pin<Box<Sleep>>> {
        match &mut self.stage {
            Stage::Back { until, .. } => Some(until),
            _ => None,
        }
    }

    /// It has waited for long enough.
    pub(super) fn goes(&mut self) {
        if matches!(self.stage, Stage::Back { .. }) {
            self.stage = Stage::Goes;
        }
    }

    /// It is to be tried once more and for the last time, at once.
    pub(super) fn goes_last(&mut self) {
        self.last = true;
        self.goes();
    }

    /// It passes the gate.
    pub(super) fn passes(&mut self) {
        self.stage = Stage::Said;
        self.said.clear();
        self.at = 0;
    }
}

fn put_close(out: &mut Vec<u8>, name: &[u8]) {
    let mut message = BytesMut::new();
    put(&mut message, front::CLOSE, |out| {
        out.extend_from_slice(b"S");
        put_cstr(out, name);
    });
    out.extend_from_slice(&message);
}

/// The statement of a Bind.
pub(super) fn bound(body: &[u8]) -> &[u8] {
    name_of(body.get(name_of(body).len() + 1..).unwrap_or_default())
}

/// Whether a message of an answer says no more than that the server has read what was said, or has begun a transaction.
fn tells_nothing(tag: u8, body: &[u8]) -> bool {
    match tag {
        back::PARSE_COMPLETE | back::BIND_COMPLETE | back::CLOSE_COMPLETE => true,
        back::PARAMETER_DESCRIPTION | back::ROW_DESCRIPTION | back::NO_DATA => true,
        back::COMMAND_COMPLETE => matches!(name_of(body), b"BEGIN" | b"START TRANSACTION"),
        back::READY_FOR_QUERY => body == b"T",
        _ => false,
    }
}

/// Another server may answer a Describe with the other one of two.
const fn kind(tag: u8) -> u8 {
    if tag == back::NO_DATA { back::ROW_DESCRIPTION } else { tag }
}

/// Whether an error tells that the fence is up.
pub(super) fn tells_of_fence(body: &[u8]) -> bool {
    Fields::parse(body).is_ok_and(|fields| fields.sqlstate() == "25006" && is_fences(&fields))
}

/// Whether it is the fence's function that refused. Anybody can raise its words, so what counts is where they come from, which
/// the server says; a function of another name that has this one in it is quoted there, or goes on before it.
fn is_fences(fields: &Fields<'_>) -> bool {
    let line = fields.get(CONTEXT).and_then(|context| context.split(|byte| *byte == b'\n').next());
    let line = line.unwrap_or_default();
    let at = line.windows(FENCE.len()).position(|window| window == FENCE);
    let before = at.and_then(|at| at.checked_sub(1)).and_then(|before| line.get(before));
    fields.message().starts_with(FENCED)
        && at.is_some()
        && before.is_none_or(|byte| !in_word(*byte))
        && !line.contains(&b'"')
}
