//! Owns the moving of bytes between the legs of one session, and the decision at each message whether it may pass.
//! Refuses to wait: everything here is a poll, the waiting is the runtime's.

use std::io;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::task::{Context, Poll, ready};

use bytes::Buf;
use pgteal_wire::frame::{self, FrameError, LARGE_MESSAGE_LIMIT};
use pgteal_wire::message::tag::{back, front};
use pgteal_wire::tracker::Reply;

use super::again::Standing;
use super::ending::begins_fatal;
use super::opening::Opening;
use super::second_try::{self, is_read_only};
use super::walk::Body;
use super::{OpenError, Second, Session, State};
use crate::gate::Before;
use crate::registry::Command;
use crate::stats::Limit;
use crate::upstream::{Idle, Upstream};

/// Server messages up to this size are waited for whole when their content matters.
const WHOLE: usize = 4096;
/// The longest value of a setting that is noted beyond that.
const LONG_SETTING: usize = 64 * 1024;

/// Bytes that are moved before other sessions of the thread have their turn.
const BREATH: usize = 256 * 1024;

/// Why the relay stopped to let something else happen.
#[derive(Debug)]
pub(super) enum Wake {
    Command(Command),
    ClientGone(Option<io::Error>),
    ServerGone(Option<io::Error>),
    BadBytes {
        from_client: bool,
        error: FrameError,
    },
    /// There is something to do between two transactions.
    Work,
    /// Much was moved at once: others first.
    Breath,
    /// What was refused for reasons that are not the client's is to be taken back.
    Refused,
    /// A transaction wants to begin, and the session is not on the side that the route says.
    WrongSide,
    /// A transaction wants to begin, and the client does not know yet what is different on this side.
    Untold,
    /// The second upstream is there, or is not to be had.
    Second(Box<Result<(Upstream, State), OpenError>>),
    /// The second upstream went away while it waited.
    SecondLost,
}

enum Admission {
    Go,
    Wait,
    WrongSide,
    Untold,
    /// The client takes its leave, and its upstream is left to the next one.
    Leaves,
}

impl Session {
    /// Moves what can be moved. Each leg is asked only when what it says can be taken, and at the end of a poll a leg
    /// has either said that it has nothing more, or waits for the other one.
    pub(super) fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if !std::mem::replace(&mut self.listens, true) {
            self.entry.mailbox.wake(cx.waker());
        }
        if let Some(command) = self.entry.mailbox.take() {
            return Poll::Ready(Wake::Command(command));
        }
        if let Poll::Ready(wake) = self.poll_second(cx) {
            return Poll::Ready(wake);
        }
        let moved = self.poll_legs(cx);
        self.up.rest();
        self.down.rest();
        moved
    }

    fn poll_legs(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        let mut moved = 0;
        loop {
            if self.again.as_ref().is_some_and(|again| again.over().is_some()) {
                return Poll::Ready(Wake::Refused);
            }
            if let Poll::Ready(wake) = self.poll_up(cx, &mut moved) {
                return Poll::Ready(wake);
            }
            let (before, was_full, had_words) = (moved, self.tracker.is_full(), self.down.has_cleared());
            if let Poll::Ready(wake) = self.poll_down(cx, &mut moved) {
                return Poll::Ready(wake);
            }
            if self.again.as_ref().is_some_and(|again| again.over().is_some()) {
                continue;
            }
            if self.has_work() {
                return Poll::Ready(Wake::Work);
            }
            // What the server said may let pass what the client had said before; what the client has read makes room for the
            // answer to what is dropped.
            let heard = moved != before || (had_words && !self.down.has_cleared());
            let waits = was_full || self.dropping.is_some() || !self.up.pending().is_empty();
            if !heard || !waits {
                return Poll::Pending;
            }
        }
    }

    fn poll_second(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        match &mut self.second {
            Second::Opening { task, .. } => {
                let done = std::task::ready!(std::pin::Pin::new(task).poll(cx));
                self.second = Second::None;
                Poll::Ready(Wake::Second(Box::new(
                    done.unwrap_or_else(|error| Err(OpenError::internal(&error))),
                )))
            }
            Second::Ready { upstream, .. } => {
                let (gate, side) = (&self.shared.gate, upstream.course.side);
                match upstream.poll_idle(cx, || gate.course().side == side) {
                    Poll::Ready(Idle::Lost) => Poll::Ready(Wake::SecondLost),
                    Poll::Ready(Idle::Ours) => Poll::Ready(Wake::WrongSide),
                    Poll::Pending => Poll::Pending,
                }
            }
            Second::None | Second::Failed(_) => Poll::Pending,
        }
    }

    /// From the client to the server.
    fn poll_up(&mut self, cx: &mut Context<'_>, moved: &mut usize) -> Poll<Wake> {
        loop {
            match self.scan_client() {
                Ok(Admission::Go | Admission::Wait) => {}
                Ok(Admission::WrongSide) => return Poll::Ready(Wake::WrongSide),
                Ok(Admission::Untold) => return Poll::Ready(Wake::Untold),
                Ok(Admission::Leaves) => return Poll::Ready(Wake::ClientGone(None)),
                Err(error) => return Poll::Ready(Wake::BadBytes { from_client: true, error }),
            }
            // After the scan, which may just have begun to wait.
            if let Some(before) = &mut self.before {
                let bytes = self.up.pending().len();
                before.place.keeps(bytes);
                self.entry.held_bytes.store(bytes as u64, Relaxed);
                if before.poll_opened(cx).is_ready() {
                    if let Some(again) = &mut self.again {
                        again.goes();
                    }
                    continue;
                }
            }
            if self.poll_again(cx) {
                continue;
            }
            if self.write_to_server(cx) && self.dropping.is_some() {
                // What is dropped lies behind what was written just now.
                continue;
            }
            if self.tracker.is_full() {
                return Poll::Pending;
            }
            if *moved >= BREATH {
                return Poll::Ready(Wake::Breath);
            }
            if self.before.is_some() && self.held_enough() {
                // The opening wakes us.
                return Poll::Pending;
            }
            if self.client_readable.poll(cx, &self.client).is_pending() {
                // At once: the other direction's window is filled from the same bytes.
                self.up.rest();
                return Poll::Pending;
            }
            match ready!(self.up.poll_fill(cx, &mut self.client)) {
                Ok(0) => return Poll::Ready(Wake::ClientGone(None)),
                Ok(count) => {
                    self.entry.received.add(count);
                    *moved += count;
                }
                Err(error) => return Poll::Ready(Wake::ClientGone(Some(error))),
            }
        }
    }

    /// Whether no more of what is held is to be read.
    fn held_enough(&self) -> bool {
        let enough = self.shared.gate.waiting_bytes() >= self.shared.config.limits.max_held_bytes as u64;
        if enough {
            self.shared.stats.hit(Limit::MaxHeldBytes);
        }
        enough
    }

    /// Whether something was written to its end.
    fn write_to_server(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.up.has_cleared() {
            return false;
        }
        if !self.server_deaf {
            let Some(upstream) = &mut self.upstream else { return false };
            match self.up.poll_drain(cx, &mut upstream.stream) {
                Poll::Ready(Ok(())) => return true,
                Poll::Pending => return false,
                // What the server said before it went is still to be read.
                Poll::Ready(Err(_)) => self.server_deaf = true,
            }
        }
        self.up.drop_cleared();
        true
    }

    /// From the server to the client.
    fn poll_down(&mut self, cx: &mut Context<'_>, moved: &mut usize) -> Poll<Wake> {
        loop {
            if self.down.has_cleared()
                && let Poll::Ready(Err(error)) = self.down.poll_drain(cx, &mut self.client)
            {
                return Poll::Ready(Wake::ClientGone(Some(error)));
            }
            if *moved >= BREATH {
                return Poll::Ready(Wake::Breath);
            }
            let Some(upstream) = &mut self.upstream else { return Poll::Pending };
            ready!(self.server_readable.poll(cx, &upstream.stream));
            match ready!(self.down.poll_fill(cx, &mut upstream.stream)) {
                Ok(0) => return Poll::Ready(Wake::ServerGone(None)),
                Ok(count) => {
                    self.entry.sent.add(count);
                    *moved += count;
                }
                Err(error) => return Poll::Ready(Wake::ServerGone(Some(error))),
            }
            if let Err(error) = self.scan_server() {
                return Poll::Ready(Wake::BadBytes { from_client: false, error });
            }
        }
    }

    /// Clears the client's messages that may pass.
    fn scan_client(&mut self) -> Result<Admission, FrameError> {
        let room = self.shared.config.limits.prepared_bytes;
        if self.dropping.is_some() && !self.drop_cancelled()? {
            return Ok(Admission::Go);
        }
        loop {
            if !self.up_walk.between_messages() {
                if self.up.pending().is_empty() {
                    return Ok(Admission::Go);
                }
                self.keep_to_say_again(self.up_walk.left().min(self.up.pending().len()));
                if let Some(body) = self.up_walk.pass(&mut self.up) {
                    self.holdings.client_message(body, self.fate, room);
                    self.up_walk.slim();
                }
                continue;
            }
            let pending = self.up.pending();
            let Some(header) = frame::peek(pending, self.shared.config.limits.max_packet_size)? else {
                return Ok(Admission::Go);
            };
            if header.tag == front::TERMINATE && self.leaves_upstream() {
                return Ok(Admission::Leaves);
            }
            match self.admit(header.tag) {
                Admission::Go => {}
                other => return Ok(other),
            }
            self.is_said_again(header);
            self.fate = self.tracker.client(header.tag);
            let keep = self.holdings.wants_of_client(header.tag, room);
            if keep == 0 {
                self.holdings.client_tag(header.tag);
                self.leaving |= header.tag == front::TERMINATE;
            } else if let Some(bytes) = self.up.pending().get(frame::HEADER_LEN..header.total)
                && bytes.len() <= keep
            {
                let body = Body { tag: header.tag, bytes, cut: false };
                self.holdings.client_message(body, self.fate, room);
                self.keep_to_say_again(header.total);
                self.up.clear(header.total);
                continue;
            }
            self.keep_to_say_again(frame::HEADER_LEN);
            self.up.clear(frame::HEADER_LEN);
            self.up_walk.begin(header.tag, header.body_len(), keep);
            if self.tracker.at_boundary() {
                // It asked nothing of the server (a Flush, say), so no answer will lead out again.
                self.leave_gate();
            }
        }
    }

    /// Decides about the next client message.
    fn admit(&mut self, tag: u8) -> Admission {
        if tag == front::TERMINATE || self.streams(tag) {
            return Admission::Go;
        }
        if self.again.as_ref().is_some_and(|again| again.is_back()) && !self.may_say_again() {
            return Admission::Wait;
        }
        loop {
            if self.pass.inside {
                let alone = self.is_alone(tag);
                if !(alone || self.shared.gate.is_closed()) || self.tracker.may_pass(tag) {
                    self.admitted();
                    return Admission::Go;
                }
                if alone {
                    return Admission::Wait;
                }
            } else if self.waits_for_upstream() {
                // Its statement stays here, where it can be cancelled.
                return Admission::Wait;
            } else if let Some(side) = self.pass.enter() {
                if self.side() != Some(side) {
                    self.pass.leave();
                    return Admission::WrongSide;
                }
                if self.untold.is_some() {
                    self.pass.leave();
                    return Admission::Untold;
                }
                self.entry.inside_since.store(self.shared.registry.now(), Relaxed);
                self.begin_to_keep();
                self.admitted();
                return Admission::Go;
            }
            if self.before.is_some() {
                return Admission::Wait;
            }
            // From here on an opening wakes us; the gate is asked once more, so that none is missed in between.
            self.before = Some(Before::new(&self.shared.gate));
            self.entry.held_since.store(self.shared.registry.now(), Relaxed);
            self.entry.held.store(true, Relaxed);
        }
    }

    /// Whether its upstream is being opened on the side where it is to go on.
    fn waits_for_upstream(&self) -> bool {
        let gate = &self.shared.gate;
        self.upstream.is_none() && !gate.is_closed() && self.side() == Some(gate.course().side)
    }

    fn admitted(&mut self) {
        if let Some(before) = self.before.take() {
            let stall = before.place.since.elapsed();
            self.shared.stats.stalls.observe(stall);
            let stall = u64::try_from(stall.as_micros()).unwrap_or(u64::MAX);
            self.shared.stats.longest_stall_us.fetch_max(stall, Relaxed);
            self.entry.held.store(false, Relaxed);
        }
    }

    /// Clears the server's messages, and learns from them.
    pub(super) fn scan_server(&mut self) -> Result<(), FrameError> {
        loop {
            if !self.down_walk.between_messages() || self.nobodys > 0 {
                if self.down.pending().is_empty() {
                    return Ok(());
                }
                self.pass_down();
                continue;
            }
            let pending = self.down.pending();
            let rows = frame::run(pending, |tag| matches!(tag, back::DATA_ROW | back::COPY_DATA));
            if rows > 0 {
                self.answer_is_shown();
                // They mean nothing to anybody here.
                self.down.clear(rows);
                continue;
            }
            let Some(header) = frame::peek(pending, LARGE_MESSAGE_LIMIT + 1)? else { return Ok(()) };
            let matters = matches!(
                header.tag,
                back::READY_FOR_QUERY | back::COMMAND_COMPLETE | back::PARAMETER_STATUS | back::ERROR
            );
            let body = pending.get(frame::HEADER_LEN..header.total);
            let is_whole = body.is_some();
            if matters && body.is_none() && pending.len() < header.total.min(WHOLE) {
                return Ok(());
            }
            if header.tag == back::ERROR {
                let start = body.or_else(|| pending.get(frame::HEADER_LEN..)).unwrap_or_default();
                if begins_fatal(start) {
                    self.server_said_why = true;
                    self.again = None;
                }
            }
            let keep = if header.tag == back::PARAMETER_STATUS && body.is_none() { LONG_SETTING } else { 0 };
            let body = if matters { body.unwrap_or_default() } else { &[] };
            if header.tag == back::ERROR {
                self.meets_fence(body);
            }
            let heard = match &mut self.again {
                Some(again) => {
                    let holdings = &self.holdings;
                    let params = self.upstream.as_ref().map(|upstream| &upstream.params);
                    let read_only_by_fence = self.read_only_by_fence && params.is_some_and(is_read_only);
                    second_try::hears(again, header.tag, body, !self.tracker.unsynced(), |again| {
                        let opening = Opening::read(again.said(), holdings);
                        Standing {
                            read_only_by_fence: read_only_by_fence && !opening.is_read_only,
                            writes: opening.writes,
                            binds_carried: again.binds().any(|name| holdings.statements.is_unproven(name)),
                        }
                    })
                }
                None => Some(false),
            };
            let reply = self.tracker.server(header.tag, body);
            self.holdings.server_message(header.tag, body, reply);
            if header.tag == back::PARAMETER_STATUS
                && keep == 0
                && let Some(upstream) = &mut self.upstream
            {
                upstream.params.take(body);
                if let Some(name) = body.strip_prefix(b"application_name\0") {
                    let name = String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name));
                    self.entry.details().renamed = Some(name.into_owned());
                }
            }
            if heard.is_none() {
                self.answer_is_shown();
            }
            if heard == Some(true) {
                self.nobodys = header.total;
                self.pass_down();
            } else if is_whole {
                self.down.clear(header.total);
            } else {
                self.down.clear(frame::HEADER_LEN);
                self.down_walk.begin(header.tag, header.body_len(), keep);
                self.pass_down();
            }
            if self.replication && matches!(header.tag, back::COPY_BOTH | back::READY_FOR_QUERY) {
                self.stream_or_not();
            }
            if let Reply::UnitEnded(_) = reply {
                self.unit_ended();
            }
        }
    }

    /// Lets a server message's body pass; a setting too long to be waited for is noted at its end.
    fn pass_down(&mut self) {
        if self.nobodys > 0 {
            let count = self.nobodys.min(self.down.pending().len());
            self.down.remove(count);
            self.nobodys -= count;
            return;
        }
        if let Some(body) = self.down_walk.pass(&mut self.down) {
            if let Some(upstream) = self.upstream.as_mut().filter(|_| !body.cut) {
                upstream.params.take(body.bytes);
            }
            self.down_walk.slim();
        }
    }

    fn unit_ended(&mut self) {
        self.entry.queries.fetch_add(1, Relaxed);
        if self.tracker.at_boundary() {
            // Before the gate is left: who drains and then settles must find it.
            if self.target.is_some() {
                let fits =
                    matches!(&self.second, Second::Ready { upstream, state } if self.fits(upstream, state));
                self.entry.stale.store(!fits, Release);
            }
            self.leave_gate();
            self.answer_is_shown();
        }
    }

    /// Takes over what the server had said before the relay began, as far as there is room.
    pub(super) fn take_early(&mut self) {
        let Some(upstream) = &mut self.upstream else { return };
        if !upstream.early.is_empty() {
            let count = self.down.put_pending(&upstream.early);
            upstream.early.advance(count);
            // Bad bytes show again at the next read.
            let _ = self.scan_server();
        }
    }
}
