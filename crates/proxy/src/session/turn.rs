//! Owns a session's change of sides: the parting from its old upstream, and the adoption of the new one.
//! Refuses to decide when.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use pgteal_wire::tracker::Tracker;

use super::ending::End;
use super::locks::{self, Lock};
use super::work::HALF_SAID;
use super::{OpenError, Second, Session, State, open, parting, second_try};
use crate::registry::TurnAnswer;
use crate::roll::Use;
use crate::route::Route;
use crate::stats::Stats;
use crate::upstream::{TalkError, Upstream};

/// How long the rest of a message may take whose beginning is there.
const REST: Duration = Duration::from_millis(500);

impl Session {
    /// Goes to the side that the route says. The old upstream is left at once; the new one is the second upstream when it
    /// is ready, else it is opened before the client's next message passes.
    pub(super) async fn turn(&mut self) -> Result<TurnAnswer, End> {
        let side = self.shared.gate.course().side;
        if self.side() == Some(side) {
            return Ok(TurnAnswer::Moved);
        }
        if self.upstream.is_none() {
            // The route changed back while the upstream was being opened: open again where it says now.
            if let Second::Opening { task, .. } = std::mem::take(&mut self.second) {
                task.abort();
            }
            self.second = self.open_beside(side, State::of(&self.holdings));
            return Ok(TurnAnswer::Cold);
        }
        if self.replication {
            return Err(End::pinned("a replication connection"));
        }
        self.await_rest().await?;
        if !self.at_rest() {
            let is_idle = self.tracker.at_boundary() && !self.pass.inside;
            return Err(End::Bounded(match is_idle {
                true if self.down.has_cleared() => "the client does not read",
                true => HALF_SAID,
                false => "the session is inside a transaction",
            }));
        }
        if !self.holdings.is_current() {
            self.look().await?;
            self.await_rest().await?;
            if !self.hears_whole_messages() {
                return Err(End::Bounded(HALF_SAID));
            }
        }
        if !self.holdings.is_current() {
            return Err(End::Bounded("the session's state cannot be observed"));
        }
        if let Some(pin) = self.holdings.pins().first() {
            return Err(End::pinned(pin));
        }
        let is_ready = matches!(&self.second, Second::Ready { upstream, state }
            if upstream.course.side == side && state.fits(&self.holdings) && state.locks == self.holdings.locks
                && (self.holdings.needs_presence().is_some() || !self.is_left(upstream)));
        if let Some(what) = self.holdings.needs_presence()
            && !is_ready
        {
            // Others are let in before its new upstream is there, and what they do would be missed.
            return Err(End::pinned(&format!("{what}, and was not made ready in time")));
        }
        let deep = self.part().await?;
        let old = self.upstream.take();
        if let Some(old) = &old {
            self.told = old.params.clone();
        }
        self.tracker = Tracker::new();
        let turned = match std::mem::take(&mut self.second) {
            Second::Ready { mut upstream, .. } if is_ready => match self.deepen(&mut upstream, deep).await {
                Ok(()) => self.adopt(*upstream).await.map(|()| TurnAnswer::Moved),
                Err(why) => Err(why),
            },
            second => {
                self.second = second;
                if !matches!(&self.second, Second::Opening { side: there, .. } if *there == side) {
                    self.prepare(side);
                }
                let mut details = self.entry.details();
                details.cancel = None;
                Ok(TurnAnswer::Cold)
            }
        };
        if let Some(old) = old {
            self.shared.farewell.leave(old);
        }
        self.target = None;
        self.holdings.unlockable = None;
        self.holdings.forget_words();
        self.publish();
        turned
    }

    /// Makes an upstream the session's own.
    pub(super) async fn adopt(&mut self, upstream: Upstream) -> Result<(), End> {
        let known = self.untold.take().unwrap_or_else(|| std::mem::take(&mut self.told));
        if !upstream.params.changes_since(&known).is_empty() {
            self.untold = Some(known);
        }
        {
            let mut details = self.entry.details();
            details.side = Some(upstream.course.side);
            details.cancel = upstream.cancel.clone();
        }
        upstream.ticket.set(Use::Session);
        upstream.ticket.belongs_to(self.entry.id);
        self.stays |= self.origin.route == Route::Read && upstream.ticket.replica().is_none();
        self.read_only_by_fence &= second_try::is_read_only(&upstream.params);
        self.upstream = Some(upstream);
        self.holdings.statements.carried();
        self.server_said_why = false;
        self.take_all_early().await
    }

    /// Nothing that the server began to say is left to be heard.
    pub(super) fn hears_whole_messages(&self) -> bool {
        self.down_walk.between_messages() && self.down.pending().is_empty()
    }

    /// Tells the client what is different on its new side, now that it has asked something. A server does so before a
    /// ReadyForQuery, and there are drivers that bear it nowhere else: one that waits for notifications takes nothing but
    /// those.
    pub(super) async fn tell_changes(&mut self) -> Result<(), End> {
        self.await_rest().await?;
        if !self.hears_whole_messages() {
            return Err(End::Bounded(HALF_SAID));
        }
        let (Some(known), Some(upstream)) = (self.untold.take(), &self.upstream) else { return Ok(()) };
        let changes = upstream.params.changes_since(&known);
        self.tell_client(&changes).await
    }

    /// A message of the server whose beginning is there, as a notification may be, is waited for to its end.
    pub(super) async fn await_rest(&mut self) -> Result<(), End> {
        let rest = async {
            while self.tracker.at_boundary() && !self.pass.inside && !self.hears_whole_messages() {
                let Some(upstream) = &mut self.upstream else { return Ok(()) };
                let drained = std::future::poll_fn(|cx| self.down.poll_drain(cx, &mut self.client)).await;
                drained.map_err(|error| End::ClientGone(Some(error)))?;
                match std::future::poll_fn(|cx| self.down.poll_fill(cx, &mut upstream.stream)).await {
                    Ok(0) => return Err(End::ServerGone(None)),
                    Ok(_) => {}
                    Err(error) => return Err(End::ServerGone(Some(error))),
                }
                self.scan_server().map_err(|error| End::BadBytes { from_client: false, error })?;
            }
            Ok(())
        };
        tokio::time::timeout(REST, rest).await.unwrap_or(Ok(()))
    }

    /// The last conversation with the upstream that is left: what was notified there is here afterwards. Nobody commits
    /// there any more, and a server has sent what was committed before it answers. Answers which locks were held more than
    /// once, and how often.
    async fn part(&mut self) -> Result<Vec<(Lock, u32)>, End> {
        let Some(what) = self.holdings.needs_presence() else { return Ok(Vec::new()) };
        let Some(upstream) = &mut self.upstream else { return Ok(Vec::new()) };
        let (mut aside, limit) = (BytesMut::new(), self.shared.config.limits.observe());
        let parted = parting::part(upstream, &self.holdings.locks, limit, &mut aside).await;
        if !aside.is_empty() {
            self.tell_client(&aside).await?;
        }
        let counts = match parted {
            Ok(counts) => counts,
            Err(TalkError::Fatal { whole, .. }) => return Err(End::ServerSaid(whole)),
            // What it had to say is lost, and nobody can tell whether it had, or how often what is held.
            Err(error) => return Err(End::pinned(&format!("{what} on a server that was lost ({error})"))),
        };
        if let Some(upstream) = &mut self.upstream {
            let words = parting::last_words(&mut upstream.early, &mut upstream.params);
            self.tell_client(&words).await?;
        }
        let locks = &self.holdings.locks;
        if counts.len() != locks.len() || counts.iter().any(|count| !(1..locks::DEEPEST).contains(count)) {
            return Err(End::pinned("session advisory locks, and nobody can tell how often"));
        }
        Ok(locks.iter().cloned().zip(counts).filter(|(_, count)| *count > 1).collect())
    }

    /// Holds locks on the new upstream as often as they were held on the old one.
    async fn deepen(&self, upstream: &mut Upstream, deep: Vec<(Lock, u32)>) -> Result<(), End> {
        if deep.is_empty() {
            return Ok(());
        }
        let limit = self.shared.config.limits.observe();
        let deepened = parting::deepen(upstream, &deep, limit).await;
        deepened.map_err(|error| {
            End::pinned(&format!(
                "session advisory locks more than once, and the new server does not ({error})"
            ))
        })
    }

    /// Takes over all that the server said behind what it was asked, however much that is.
    pub(super) async fn take_all_early(&mut self) -> Result<(), End> {
        loop {
            self.take_early();
            if self.upstream.as_ref().is_none_or(|upstream| upstream.early.is_empty()) {
                return Ok(());
            }
            self.make_room().await?;
        }
    }

    pub(super) async fn second_is_there(
        &mut self,
        result: Result<(Upstream, State), OpenError>,
    ) -> Result<(), End> {
        match result {
            Ok((upstream, state)) if self.upstream.is_none() => {
                let side = self.shared.gate.course().side;
                if upstream.course.side != side {
                    upstream.close_later();
                    self.second = self.open_beside(side, State::of(&self.holdings));
                } else if state.same_revisions(&self.holdings) {
                    self.adopt(upstream).await?;
                } else {
                    let want = State::of(&self.holdings);
                    self.second = Second::Opening {
                        side,
                        task: tokio::spawn(open::refresh(
                            Arc::clone(&self.shared),
                            upstream,
                            state,
                            want,
                            Vec::new(),
                        )),
                    };
                }
            }
            Ok((upstream, state)) => {
                upstream.ticket.belongs_to(self.entry.id);
                self.second = Second::Ready { upstream: Box::new(upstream), state: Box::new(state) }
            }
            Err(error @ OpenError::Rehearsal(_)) => {
                // Once more, and without.
                tracing::debug!(session = self.entry.id, %error, "opened again");
                self.holdings.repertoire.mute();
                if self.upstream.is_none() {
                    let side = self.shared.gate.course().side;
                    self.second = self.open_beside(side, State::of(&self.holdings));
                }
            }
            Err(error) if self.upstream.is_none() => {
                Stats::count(&self.shared.stats.upstream_lost);
                return Err(End::NoUpstream(error));
            }
            Err(OpenError::Statements(refused)) => self.doubtful = refused,
            Err(OpenError::Locked(what)) => self.holdings.unlockable = Some(what),
            Err(OpenError::Outdated(what)) => self.holdings.outdated = Some(what),
            Err(error) => self.second = Second::Failed(error.to_string()),
        }
        self.publish();
        Ok(())
    }
}
