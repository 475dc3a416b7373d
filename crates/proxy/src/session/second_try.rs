//! Owns a session's part in a second try (`again`): when what the client says is kept, which answers are for nobody, and how what
//! was refused comes back before the gate. Refuses to know which refusals these are.

use std::future::Future;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Context;

use bytes::BytesMut;
use pgteal_wire::frame::{self, Header};
use pgteal_wire::message::frontend::put_sync;
use pgteal_wire::message::put;
use pgteal_wire::message::tag::{back, front};
use pgteal_wire::tracker::Tracker;

use super::again::{Again, Refusal, Standing, bound, tells_of_fence};
use super::ending::End;
use super::open::Past;
use super::{Session, State, ask, open};
use crate::gate::Before;
use crate::registry::Command;
use crate::upstream::Params;

/// Whether a replica is behind this connection, which refuses writes whatever happens to its primary.
fn is_replica(params: &Params) -> bool {
    params.get("in_hot_standby") == Some(b"on")
}

/// Whether sessions on this connection are read-only by default.
pub(super) fn is_read_only(params: &Params) -> bool {
    params.get("default_transaction_read_only") == Some(b"on")
}

impl Session {
    /// The session went inside the gate. What it says there first is kept when its server may refuse it for reasons of its own.
    pub(super) fn begin_to_keep(&mut self) {
        if let Some(again) = &mut self.again {
            again.passes();
            return;
        }
        let fenced = self.keeps_for_fence();
        if fenced || (self.holdings.statements.has_unproven() && !self.replication) {
            self.again = Some(Box::new(Again::new(fenced)));
        }
    }

    /// Whether the fence may be up, and what it refuses is to wait.
    fn keeps_for_fence(&self) -> bool {
        let may_be_fenced = self.shared.gate.is_at_risk() && self.shared.config.limits.fence_wait_ms > 0;
        may_be_fenced
            && !self.replication
            && !self.upstream.as_ref().is_some_and(|upstream| is_replica(&upstream.params))
    }

    /// A message that is about to pass.
    pub(super) fn is_said_again(&mut self, header: Header) {
        if self.again.is_none() {
            return;
        }
        let binds_carried = header.tag == front::BIND && self.binds_carried();
        let is_next = !self.tracker.at_boundary() && !self.tracker.may_pass(header.tag);
        let Some(again) = &mut self.again else { return };
        again.alone |= binds_carried;
        match header.tag {
            front::FUNCTION_CALL | front::TERMINATE => self.answer_is_shown(),
            // Behind a unit that is not answered: which of them would be refused nobody could tell.
            _ if is_next => self.answer_is_shown(),
            front::FLUSH => again.flush(),
            _ => {}
        }
    }

    /// Whether the Bind that the client says next is of a statement that was carried and not bound since; so it is when that
    /// cannot be told yet.
    fn binds_carried(&self) -> bool {
        let pending = self.up.pending();
        let Ok(Some(header)) = frame::peek(pending, usize::MAX) else { return true };
        let known = pending.get(frame::HEADER_LEN..header.total.min(pending.len())).unwrap_or_default();
        self.holdings.statements.has_unproven()
            && (known.iter().filter(|byte| **byte == 0).count() < 2
                || self.holdings.statements.is_unproven(bound(known)))
    }

    /// Whether a message waits until everything before it is answered. Behind what is not kept, too: only what begins a
    /// transaction is kept from its first byte.
    pub(super) fn is_alone(&self, tag: u8) -> bool {
        self.keeps_for_fence()
            || self.again.as_ref().is_some_and(|again| again.alone)
            || (tag == front::BIND && self.holdings.statements.has_unproven() && self.binds_carried())
    }

    /// The next bytes of the client pass.
    pub(super) fn keep_to_say_again(&mut self, count: usize) {
        if self.again.is_none() {
            return;
        }
        let whole = self.hears_whole_messages();
        let Some(again) = &mut self.again else { return };
        let pending = self.up.pending();
        if again.keep(pending.get(..count).unwrap_or(pending)) {
            return;
        }
        if !again.is_refused() {
            self.answer_is_shown();
        } else if whole && let Some(again) = self.again.take() {
            self.down.put_front(&again.give_up());
        }
    }

    /// The answer to what is kept is the client's.
    pub(super) fn answer_is_shown(&mut self) {
        if let Some(again) = self.again.take_if(|again| !again.is_back()) {
            for name in again.binds().take(again.bound()) {
                self.holdings.statements.is_proven(name);
            }
        }
    }

    /// Whether what was refused may be said again now.
    pub(super) fn may_say_again(&self) -> bool {
        let gate = &self.shared.gate;
        gate.is_closed() || self.again.as_ref().is_none_or(|again| again.may_go(gate.course()))
    }

    /// Whether what was refused has waited for long enough just now.
    pub(super) fn poll_again(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(again) = &mut self.again else { return false };
        let waited = again.waits().is_some_and(|until| until.as_mut().poll(cx).is_ready());
        if waited {
            again.goes();
        }
        waited
    }

    /// What a server's error says of it, beside its being an error.
    pub(super) fn meets_fence(&self, body: &[u8]) {
        if tells_of_fence(body) {
            self.shared.gate.met_fence();
        }
    }

    /// The server's refusal is over: what it refused goes back before the gate.
    pub(super) async fn take_back(&mut self) -> Result<(), End> {
        let Some(why) = self.again.as_ref().and_then(|again| again.over()) else { return Ok(()) };
        tracing::debug!(session = self.entry.id, ?why, "to be said again");
        if !self.tracker.at_boundary() {
            self.roll_back().await?;
        }
        let mended = match why {
            Refusal::Fence => false,
            Refusal::ReadOnly => {
                self.log_in_again().await?;
                false
            }
            Refusal::Plan => self.parse_again().await?,
        };
        let (course, limit) = (self.shared.gate.course(), self.shared.config.limits.fence_wait());
        let is_here = self.side() == Some(course.side);
        let Some(again) = &mut self.again else { return Ok(()) };
        let said = again.take_back(why, mended, course, limit);
        if !is_here {
            again.goes();
        }
        if std::mem::take(&mut again.cancelled) {
            // The server had refused it before the request came.
            self.entry.tell(Command::Cancel { reply: None });
        }
        self.up.put_front(&said);
        self.before = Some(Before::new(&self.shared.gate));
        self.entry.held_since.store(self.shared.registry.now(), Relaxed);
        self.entry.held.store(true, Relaxed);
        Ok(())
    }

    /// Says something to the server that the client does not hear of. What the server answers does not matter.
    async fn say_beside(&mut self, unit: &[u8]) -> Result<(), End> {
        let limit = self.shared.config.limits.observe();
        let mut aside = BytesMut::new();
        let Some(upstream) = &mut self.upstream else { return Ok(()) };
        let answer = ask::unit(upstream, unit, limit, &mut aside).await;
        if !aside.is_empty() {
            self.tell_client(&aside).await?;
        }
        self.take_all_early().await?;
        answer.map(drop).map_err(End::lost)
    }

    /// The client's transaction has failed with what it began with.
    async fn roll_back(&mut self) -> Result<(), End> {
        let mut unit = BytesMut::new();
        ask::say(&mut unit, "ROLLBACK");
        put_sync(&mut unit);
        self.say_beside(&unit).await?;
        self.tracker = Tracker::new();
        self.leave_gate();
        Ok(())
    }

    /// What is bound is parsed anew, as the client once had it parsed; false when clients are held, for then this server may be
    /// fenced or left. What is said again afterwards is refused again if it is said here.
    async fn parse_again(&mut self) -> Result<bool, End> {
        let side = self.pass.enter();
        if side.is_none() || side != self.side() {
            self.pass.leave();
            return Ok(false);
        }
        let mut unit = BytesMut::new();
        for name in self.again.iter().flat_map(|again| again.binds()) {
            if let Some(message) = self.holdings.statements.get(name) {
                put(&mut unit, front::CLOSE, |out| out.extend_from_slice(&[b"S", name, b"\0"].concat()));
                unit.extend_from_slice(&message);
            }
        }
        put_sync(&mut unit);
        self.say_beside(&unit).await?;
        self.pass.leave();
        Ok(true)
    }

    /// A session that began under the fence is read-only by default for as long as it lives: once the fence is gone it goes
    /// on in another one of the same server, when all it holds can be carried there.
    async fn log_in_again(&mut self) -> Result<(), End> {
        if !self.holdings.is_current() {
            self.look().await?;
        }
        let Some(side) = self.upstream.as_ref().map(|upstream| upstream.course.side) else { return Ok(()) };
        let holds = self.holdings.is_pinned() || self.holdings.needs_presence().is_some();
        if !self.holdings.is_current() || holds || !self.at_rest() {
            return Ok(());
        }
        let (shared, origin) = (self.shared.clone(), self.origin.clone());
        let (want, past) = (State::of(&self.holdings), Past { stays: self.stays, ..Past::default() });
        match open::open_second(shared, origin, side, past, want, Vec::new()).await {
            Ok((upstream, _)) if is_read_only(&upstream.params) => upstream.close_later(),
            Ok((upstream, _)) => {
                if let Some(old) = self.upstream.take() {
                    self.told = old.params.clone();
                    old.close_later();
                }
                self.adopt(upstream).await?;
            }
            Err(error) => tracing::debug!(session = self.entry.id, %error, "not logged in again"),
        }
        Ok(())
    }
}

/// A message of the server's answer to what is kept; `None` when by it the answer is the client's, else whether it is for nobody.
pub(super) fn hears(
    again: &mut Again,
    tag: u8,
    body: &[u8],
    ends: bool,
    standing: impl FnOnce(&Again) -> Standing,
) -> Option<bool> {
    if tag == back::ERROR {
        let standing = standing(again);
        if let Some(why) = again.refusal(body, ends, standing) {
            let mut whole = BytesMut::new();
            put(&mut whole, back::ERROR, |out| out.extend_from_slice(body));
            again.refused(why, &whole);
            return Some(true);
        }
    }
    again.heard(tag, body)
}
