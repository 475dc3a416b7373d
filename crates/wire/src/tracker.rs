//! The transaction tracker: from the messages forwarded in both directions it knows whether a session is at a
//! transaction boundary, and which client message may still pass when the gate is closing.
//! Owns the protocol's rules of who answers what; refuses to know SQL, buffers, sockets and time.
//!
//! The rules are those of `PostgresMain` and `SocketBackend` (`src/backend/tcop/postgres.c`) and of `CopyGetData`
//! (`src/backend/commands/copyfromparse.c`):
//!
//! * Query, FunctionCall and Sync are each answered by one ReadyForQuery; every other counted message by one reply.
//! * An error in an extended message makes the server ignore everything (Query too) up to the next Sync.
//! * In copy-in mode the server ignores Sync and Flush: libpq sends a Sync with the Execute that starts the COPY, and
//!   another after CopyDone; only the second is answered.
//! * CopyData, CopyDone and CopyFail outside copy-in mode are ignored.
//!
//! One case cannot be told from outside: a COPY that fails after CopyInResponse, but before the server read the Sync
//! sent with its Execute (a BEFORE STATEMENT trigger that raises), answers both Syncs. The surplus ReadyForQuery is
//! recognised when it comes and never ends a unit that has not been answered otherwise.

use crate::message::backend::TransactionStatus;
use crate::message::tag::{back, front};
use std::collections::VecDeque;

/// Messages forwarded and not yet answered, at most, before [`Tracker::is_full`] asks to stop reading from the client.
/// Each answer has five bytes or more and servers flush every 8 kB, so a full tracker always drains.
pub const MAX_UNANSWERED: usize = 65_536;

/// What a forwarded message waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ParseComplete.
    Parse,
    /// BindComplete.
    Bind,
    /// RowDescription or NoData.
    Describe,
    /// CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// CloseComplete.
    Close,
    /// ReadyForQuery.
    Sync,
    /// ReadyForQuery, after at least one result or error.
    Query,
    /// ReadyForQuery, after a result or error.
    FunctionCall,
    /// Nothing: the end of COPY data, kept because it ends the copy-in mode of the message before it.
    CopyEnd,
}

impl Kind {
    fn of(tag: u8) -> Option<Self> {
        Some(match tag {
            front::PARSE => Self::Parse,
            front::BIND => Self::Bind,
            front::DESCRIBE => Self::Describe,
            front::EXECUTE => Self::Execute,
            front::CLOSE => Self::Close,
            front::SYNC => Self::Sync,
            front::QUERY => Self::Query,
            front::FUNCTION_CALL => Self::FunctionCall,
            front::COPY_DONE | front::COPY_FAIL => Self::CopyEnd,
            _ => return None,
        })
    }

    /// Whether it ends a unit of work.
    fn ends_unit(self) -> bool {
        matches!(self, Self::Sync | Self::Query | Self::FunctionCall)
    }

    fn is_extended(self) -> bool {
        matches!(self, Self::Parse | Self::Bind | Self::Describe | Self::Execute | Self::Close)
    }
}

/// What the server will do with a forwarded client message, as far as is known now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It acts on it, or the message needs no answer.
    Taken,
    /// It ignores it: after an error up to the next Sync, Sync in copy-in mode, the end of COPY data without a COPY.
    Ignored,
}

/// What a server message meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Part of a result, or a message that answers nothing.
    Other,
    /// The oldest unanswered extended message is done.
    Completed(Kind),
    /// An error: these messages, forwarded after it in the same unit, never happen. The failed message itself is among
    /// them when it is a Parse or Close.
    Skipped {
        /// How many Parse messages.
        parses: usize,
        /// How many Close messages.
        closes: usize,
    },
    /// A unit ended with this status.
    UnitEnded(TransactionStatus),
    /// A ReadyForQuery that ends nothing (see the module's last paragraph).
    Stray,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copy {
    No,
    In,
    Both,
}

/// The state of one session, fed with every message that is forwarded after login. See the module for the rules.
#[derive(Debug, Clone)]
pub struct Tracker {
    /// Forwarded and unanswered, oldest first; never a `CopyEnd` at the front.
    queue: VecDeque<Kind>,
    /// How many in `queue` end a unit.
    units: usize,
    status: TransactionStatus,
    copy: Copy,
    /// The message at the front has entered copy-in mode.
    copied_in: bool,
    /// Extended messages were forwarded after the last message that ends a unit.
    tail_open: bool,
    /// The server ignores what comes until a Sync that has not been forwarded yet.
    skipping: bool,
    /// The Query or FunctionCall at the front has had a result or error.
    answered: bool,
    /// Syncs taken for ignored in copy-in mode whose COPY then failed: each may be answered after all.
    swallowed: usize,
    fresh: bool,
    lost: bool,
}

impl Default for Tracker {
    fn default() -> Self {
        Self::new()
    }
}

impl Tracker {
    /// The state after the login's ReadyForQuery.
    #[must_use]
    pub fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            units: 0,
            status: TransactionStatus::Idle,
            copy: Copy::No,
            copied_in: false,
            tail_open: false,
            skipping: false,
            answered: false,
            swallowed: 0,
            fresh: true,
            lost: false,
        }
    }

    /// A client message with this tag is forwarded (its header; the body may follow later).
    pub fn client(&mut self, tag: u8) -> Fate {
        self.fresh = false;
        let Some(kind) = Kind::of(tag) else { return Fate::Taken };
        match kind {
            Kind::CopyEnd => return self.client_ends_copy(),
            Kind::Sync => {
                if self.copy == Copy::In {
                    self.swallowed += 1;
                    return Fate::Ignored;
                }
                self.skipping = false;
                self.tail_open = false;
            }
            _ if self.skipping => {
                // If a swallowed Sync is answered after all, this message is not ignored; nobody can know.
                self.lost |= self.swallowed > 0;
                return Fate::Ignored;
            }
            kind => self.tail_open = kind.is_extended(),
        }
        self.units += usize::from(kind.ends_unit());
        self.queue.push_back(kind);
        Fate::Taken
    }

    fn client_ends_copy(&mut self) -> Fate {
        match self.copy {
            Copy::In => self.copy = Copy::No,
            Copy::Both => {}
            Copy::No if self.queue.is_empty() => return Fate::Ignored,
            Copy::No => self.queue.push_back(Kind::CopyEnd),
        }
        Fate::Taken
    }

    /// A server message with this tag is received; `body` is its beginning (ReadyForQuery needs its one byte).
    pub fn server(&mut self, tag: u8, body: &[u8]) -> Reply {
        match tag {
            back::DATA_ROW | back::COPY_DATA => Reply::Other,
            back::READY_FOR_QUERY => {
                let status = body.first().copied().and_then(TransactionStatus::from_byte);
                self.ready(status)
            }
            back::ERROR => self.error(),
            back::PARSE_COMPLETE => self.complete(Kind::Parse),
            back::BIND_COMPLETE => self.complete(Kind::Bind),
            back::CLOSE_COMPLETE => self.complete(Kind::Close),
            back::PORTAL_SUSPENDED => self.complete(Kind::Execute),
            back::ROW_DESCRIPTION | back::NO_DATA if self.front() == Some(Kind::Describe) => {
                self.complete(Kind::Describe)
            }
            back::COMMAND_COMPLETE | back::EMPTY_QUERY | back::FUNCTION_CALL_RESPONSE => {
                if matches!(self.front(), Some(Kind::Query | Kind::FunctionCall)) {
                    self.answered = true;
                    self.leave_copy();
                    self.swallowed = 0;
                    return Reply::Other;
                }
                self.complete(Kind::Execute)
            }
            back::COPY_IN => self.enter_copy_in(),
            back::COPY_BOTH => {
                self.copy = Copy::Both;
                Reply::Other
            }
            _ => Reply::Other,
        }
    }

    fn front(&self) -> Option<Kind> {
        self.queue.front().copied()
    }

    fn leave_copy(&mut self) {
        self.copy = Copy::No;
        self.copied_in = false;
    }

    fn complete(&mut self, kind: Kind) -> Reply {
        if self.front() != Some(kind) {
            self.lost = true;
            return Reply::Other;
        }
        self.pop();
        self.leave_copy();
        self.swallowed = 0;
        Reply::Completed(kind)
    }

    /// Drops the front and the ends of COPY data that belong to it.
    fn pop(&mut self) {
        if let Some(kind) = self.queue.pop_front() {
            self.units -= usize::from(kind.ends_unit());
        }
        while self.front() == Some(Kind::CopyEnd) {
            self.queue.pop_front();
        }
        self.answered = false;
    }

    fn enter_copy_in(&mut self) -> Reply {
        if !matches!(self.front(), Some(Kind::Execute | Kind::Query)) {
            self.lost = true;
            return Reply::Other;
        }
        self.copy = Copy::In;
        self.copied_in = true;
        // What was forwarded after the COPY is read in copy-in mode: Syncs are ignored until the data's end.
        while let Some(next) = self.queue.get(1).copied() {
            match next {
                Kind::Sync => {
                    self.swallowed += 1;
                    self.units -= 1;
                }
                Kind::CopyEnd => self.copy = Copy::No,
                _ => break,
            }
            self.queue.remove(1);
            if next == Kind::CopyEnd {
                break;
            }
        }
        self.tail_open =
            self.queue.iter().rev().find(|k| **k != Kind::CopyEnd).is_some_and(|k| k.is_extended());
        Reply::Other
    }

    fn error(&mut self) -> Reply {
        if !self.copied_in {
            self.swallowed = 0;
        }
        self.leave_copy();
        match self.front() {
            Some(Kind::Query | Kind::FunctionCall) => {
                self.answered = true;
                Reply::Other
            }
            Some(kind) if kind.is_extended() => self.skip_to_sync(),
            // An error of the commit that Sync makes, or one that nobody asked for (it ends the session).
            _ => Reply::Other,
        }
    }

    fn skip_to_sync(&mut self) -> Reply {
        let (mut parses, mut closes) = (0, 0);
        while let Some(kind) = self.front() {
            match kind {
                Kind::Sync => return Reply::Skipped { parses, closes },
                Kind::Parse => parses += 1,
                Kind::Close => closes += 1,
                _ => {}
            }
            self.pop();
        }
        self.skipping = true;
        self.tail_open = true;
        Reply::Skipped { parses, closes }
    }

    fn ready(&mut self, status: Option<TransactionStatus>) -> Reply {
        let Some(status) = status else {
            self.lost = true;
            return Reply::Other;
        };
        match self.front() {
            Some(Kind::Sync) => {}
            Some(Kind::Query | Kind::FunctionCall) if self.answered => {}
            None if self.skipping && self.swallowed > 0 => {
                // The Sync sent with the Execute was not ignored: the COPY failed before the server read it.
                self.skipping = false;
                self.tail_open = false;
                self.swallowed -= 1;
            }
            None if !self.tail_open => {
                self.swallowed = self.swallowed.saturating_sub(1);
                self.status = status;
                return Reply::Stray;
            }
            _ if self.swallowed > 0 => {
                self.swallowed -= 1;
                return Reply::Stray;
            }
            _ => {
                self.lost = true;
                return Reply::Stray;
            }
        }
        self.pop();
        self.leave_copy();
        self.status = status;
        Reply::UnitEnded(status)
    }

    /// Nothing forwarded is unanswered or unsynced, no transaction block is open, no COPY runs: the session may move.
    #[must_use]
    pub fn at_boundary(&self) -> bool {
        self.queue.is_empty()
            && !self.tail_open
            && !self.skipping
            && !self.lost
            && self.copy == Copy::No
            && self.status == TransactionStatus::Idle
    }

    /// Whether a client message with this tag may pass while the gate is closing: it continues a unit or transaction
    /// that is open, or carries COPY data. What would begin a new transaction, or might (the status of the unit before
    /// it is not known yet), waits: units are forwarded one at a time until one ends idle. Terminate always passes.
    #[must_use]
    pub fn may_pass(&self, tag: u8) -> bool {
        match tag {
            front::TERMINATE => true,
            _ if self.at_boundary() => false,
            front::COPY_DATA | front::COPY_DONE | front::COPY_FAIL | front::FLUSH => true,
            _ if self.copy != Copy::No || self.tail_open || self.skipping => true,
            _ => self.queue.is_empty() && self.status != TransactionStatus::Idle,
        }
    }

    /// Whether the last unit that ended left a transaction block open (or failed).
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.status != TransactionStatus::Idle
    }

    /// The status of the last unit that ended.
    #[must_use]
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// How many ReadyForQuery are still due for what was forwarded.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.units
    }

    /// Whether extended messages were forwarded that no Sync has followed.
    #[must_use]
    pub fn unsynced(&self) -> bool {
        self.tail_open || self.skipping
    }

    /// Whether the client is expected to send COPY data.
    #[must_use]
    pub fn copying(&self) -> bool {
        self.copy != Copy::No
    }

    /// Whether both sides send COPY data: a replication stream.
    #[must_use]
    pub fn streaming(&self) -> bool {
        self.copy == Copy::Both
    }

    /// No client message yet.
    #[must_use]
    pub fn fresh(&self) -> bool {
        self.fresh
    }

    /// Whether a ReadyForQuery that ends nothing may be on its way still (see the module's last paragraph).
    #[must_use]
    pub fn may_hear_surplus(&self) -> bool {
        self.swallowed > 0
    }

    /// The relay must not read from the client before the server has answered something.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queue.len() >= MAX_UNANSWERED
    }

    /// The server answered what was not asked: this session is never at a boundary again and cannot be moved.
    #[must_use]
    pub fn lost(&self) -> bool {
        self.lost
    }
}
