//! Owns what a session does between two transactions: looking at its own state, opening and refreshing the second
//! upstream. Refuses to move the client's bytes.

use std::sync::Arc;
use std::sync::atomic::Ordering::Release;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::ending::End;
use super::look::{self, Looked};
use super::open::Past;
use super::relay::Wake;
use super::{Second, Session, State, learn, observe, open, replay, second_try};
use crate::registry::{Command, TurnAnswer, WarmAnswer, WarmState};
use crate::route::Side;
use crate::upstream::Upstream;

/// While nobody waits for it, a session's state is looked at again no sooner than this after the last time.
const PATIENCE: Duration = Duration::from_millis(300);

/// A session's upstream is made ready for what it has newly said no sooner than this after the last time.
const REHEARSAL: Duration = Duration::from_secs(1);

/// How long a client may take to read what is on the way to it.
const READS: Duration = Duration::from_secs(1);

/// Why nothing of our own can be said to the client.
pub(super) const HALF_SAID: &str = "its server has not ended a message that it began";

/// How many `WARM` and `SETTLE` commands may wait for one session.
const MAX_REPLIES: usize = 8;

impl Session {
    /// Whether [`Session::work`] has something to do now. Cheap: asked after every batch.
    pub(super) fn has_work(&self) -> bool {
        // A look keeps nobody, so there must be room for what there is to tell the client meanwhile.
        if !self.look_replies.is_empty() && self.at_rest() && !self.replication && !self.down.has_cleared() {
            return self.upstream.is_some();
        }
        let Some(target) = self.target else { return false };
        let here = self.upstream.as_ref().map(|upstream| upstream.course.side);
        if self.replication || here.is_none() || here == Some(target) || !self.at_rest() {
            return false;
        }
        let impatient = self.urgent
            || self.looked_at.is_none_or(|at| at.elapsed() > PATIENCE)
            || (self.before.is_some() || self.shared.gate.is_closed());
        match &self.second {
            Second::Opening { .. } | Second::Failed(_) => false,
            Second::None if !self.doubtful.is_empty() => true,
            Second::None | Second::Ready { .. } if !self.holdings.is_current() => impatient,
            _ if self.holdings.is_pinned() => false,
            Second::None => true,
            Second::Ready { upstream, state } if !self.fits(upstream, state) => impatient,
            Second::Ready { state, .. } => {
                state.may_rehearse(&self.holdings)
                    && self.is_calm()
                    && self.rehearsed_at.is_none_or(|at| at.elapsed() > REHEARSAL)
            }
        }
    }

    /// One step towards a second upstream that is what the session needs.
    pub(super) async fn work(&mut self) -> Result<(), End> {
        if !self.holdings.is_current() {
            self.look().await?;
        }
        if !self.look_replies.is_empty() {
            self.publish();
            for reply in self.look_replies.drain(..) {
                let _ = reply.try_send(());
            }
        }
        // Behind the answer to a look a notification may have begun: its end comes first.
        if !self.doubtful.is_empty() && self.at_rest() {
            self.ask_again().await?;
        }
        let Some(side) = self.target else { return Ok(()) };
        if self.holdings.is_current()
            && !self.holdings.is_pinned()
            && !matches!(self.second, Second::Failed(_))
        {
            self.prepare(side);
        }
        self.publish();
        Ok(())
    }

    /// Opens the second upstream, or brings the one that is there up to date. Both happen beside the relay.
    pub(super) fn prepare(&mut self, side: Side) {
        let mut want = self.wanted();
        self.second = match std::mem::take(&mut self.second) {
            Second::Ready { upstream, .. } if upstream.course.side != side || self.is_left(&upstream) => {
                upstream.close_later();
                self.open_beside(side, want)
            }
            Second::Ready { upstream, state } => {
                want.rehearsed.clone_from(&state.rehearsed);
                let lines = if self.is_calm() { want.lines(&self.holdings) } else { Vec::new() };
                if lines.is_empty() && state.same_content(&want) {
                    Second::Ready { upstream, state: Box::new(want) }
                } else {
                    self.rehearsed_at = Some(Instant::now());
                    let shared = Arc::clone(&self.shared);
                    let task = tokio::spawn(open::refresh(shared, *upstream, *state, want, lines));
                    Second::Opening { side, task }
                }
            }
            Second::None | Second::Failed(_) => self.open_beside(side, want),
            opening @ Second::Opening { .. } => opening,
        };
    }

    /// The state that a second upstream is to have now.
    pub(super) fn wanted(&self) -> State {
        let mut want = State::of(&self.holdings);
        // While clients work, a lock that is held over there would outlive the session's own.
        if self.shared.gate.is_closed() {
            want.locks.clone_from(&self.holdings.locks);
        }
        want
    }

    /// Whether an upstream goes to a replica that takes no sessions any more, and another server would take this one.
    pub(super) fn is_left(&self, upstream: &Upstream) -> bool {
        let replica = upstream.ticket.replica();
        replica.is_some_and(|replica| self.shared.reads.is_left(upstream.course.side, replica))
    }

    /// Whether an upstream in this state is what the session needs now.
    pub(super) fn fits(&self, upstream: &Upstream, state: &State) -> bool {
        let locked = match self.shared.gate.is_closed() {
            true => state.locks == self.holdings.locks,
            false => state.locks.is_empty(),
        };
        state.fits(&self.holdings) && locked && !self.is_left(upstream)
    }

    /// Nobody waits: there is time for what only makes things quicker later.
    fn is_calm(&self) -> bool {
        self.upstream.is_some() && !self.shared.gate.is_closed()
    }

    pub(super) fn open_beside(&self, side: Side, want: State) -> Second {
        let lines = if self.is_calm() { want.lines(&self.holdings) } else { Vec::new() };
        let params = self.upstream.as_ref().map_or(&self.told, |upstream| &upstream.params);
        let read_only = match self.read_only_by_fence && second_try::is_read_only(params) {
            // What it would be without the fence.
            true => Some(b"off".to_vec()),
            false => params.get("default_transaction_read_only").map(<[u8]>::to_vec),
        };
        let own = self.upstream.as_ref().map(|upstream| upstream.course.side);
        let past = Past { own, stays: self.stays, read_only };
        let (shared, origin) = (Arc::clone(&self.shared), Arc::clone(&self.origin));
        let opening = open::open_second(shared, origin, side, past, want, lines);
        Second::Opening { side, task: tokio::spawn(opening) }
    }

    /// What is known of the database: the proxy reads it once for all its sessions.
    pub(super) fn take_words(&mut self) {
        let words = self.shared.warm_side.words(&self.entry.database);
        self.holdings.take_words(words);
    }

    /// Asks the server, on the client's own upstream, what the session holds.
    pub(super) async fn look(&mut self) -> Result<(), End> {
        self.looked_at = Some(Instant::now());
        self.take_words();
        let mut aside = BytesMut::new();
        let Some(upstream) = &mut self.upstream else { return Ok(()) };
        let (names, limit) = (self.holdings.names_to_ask(), self.shared.config.limits.observe());
        let looked = look::look(upstream, &names, &mut self.hurried, limit, &mut aside).await;
        if !aside.is_empty() {
            self.tell_client(&aside).await?;
        }
        self.take_all_early().await?;
        match looked {
            Ok(Looked::Rows(rows, silenced)) => {
                let params = self.upstream.as_ref().map(|upstream| &upstream.params);
                let plain =
                    params.and_then(|params| params.get("standard_conforming_strings")) == Some(b"on");
                self.holdings.observe(observe::read(rows, &silenced, self.origin.user(), plain));
            }
            Ok(Looked::Never(error)) => self.holdings.is_unobservable(&error),
            // A look that nobody waits for is made again later, and what was made ready stays.
            Ok(Looked::NotNow(error)) if !self.urgent && !self.shared.gate.is_closed() => {
                tracing::debug!(session = self.entry.id, error, "not looked at");
            }
            Ok(Looked::NotNow(error)) => {
                self.second = Second::Failed(format!("the session's state cannot be observed: {error}"));
            }
            Err(error) => return Err(End::lost(error)),
        }
        Ok(())
    }

    /// Asks the session's own server for the statements that the other one refused. What it refuses as well is broken, and
    /// its absence over there changes nothing; what it takes cannot be carried.
    async fn ask_again(&mut self) -> Result<(), End> {
        let doubtful = std::mem::take(&mut self.doubtful).into_iter();
        let known: Vec<_> = doubtful
            .filter_map(|refused| self.holdings.statements.get(&refused.name).map(|text| (refused, text)))
            .collect();
        let mut aside = BytesMut::new();
        let Some(upstream) = &mut self.upstream else { return Ok(()) };
        let limit = self.shared.config.limits.observe();
        let asked = tokio::time::timeout(limit, replay::taken_here(upstream, &known, &mut aside)).await;
        if !aside.is_empty() {
            self.tell_client(&aside).await?;
        }
        self.take_all_early().await?;
        match asked {
            Ok(Ok(taken)) => {
                if let Some(one) = taken.first() {
                    self.second = Second::Failed(one.to_string());
                }
                for (refused, _) in known.into_iter().filter(|(refused, _)| !taken.contains(refused)) {
                    self.holdings.statements.is_broken(refused.name);
                }
                Ok(())
            }
            Ok(Err(_)) => Err(End::ServerGone(None)),
            Err(_) => Err(End::Bounded("its server did not answer a question about its statements")),
        }
    }

    /// Puts whole messages of our own, or of the server outside any unit, on the way to the client.
    pub(super) async fn tell_client(&mut self, bytes: &[u8]) -> Result<(), End> {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let (some, others) = bytes.split_at(bytes.len().min(self.shared.config.limits.buffer_bytes));
            if self.down.put_cleared(some) {
                bytes = others;
            } else if self.down.has_cleared() {
                self.make_room().await?;
            } else {
                return Err(End::Bounded(HALF_SAID));
            }
        }
        Ok(())
    }

    /// Waits until the client has read what is on the way to it.
    pub(super) async fn make_room(&mut self) -> Result<(), End> {
        let drained = std::future::poll_fn(|cx| self.down.poll_drain(cx, &mut self.client));
        match tokio::time::timeout(READS, drained).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(End::ClientGone(Some(error))),
            Err(_) => Err(End::Bounded("the client does not read")),
        }
    }

    /// Tells the console what there is to see.
    pub(super) fn publish(&self) {
        let warm = match &self.second {
            Second::None => WarmState::None,
            Second::Opening { .. } => WarmState::Opening,
            Second::Ready { .. } => WarmState::Ready,
            Second::Failed(why) => WarmState::Failed(why.clone()),
        };
        let fits = matches!(&self.second, Second::Ready { upstream, state } if self.fits(upstream, state));
        let wanted = self.target.is_some() && !(self.holdings.is_current() && self.holdings.is_pinned());
        self.entry.stale.store(wanted && !fits && !matches!(warm, WarmState::Failed(_)), Release);
        let mut details = self.entry.details();
        details.warm = warm;
        if !self.replication {
            details.pins = self.holdings.pins();
            match details.pins.is_empty() {
                true => details.pinned_since = 0,
                false if details.pinned_since == 0 => details.pinned_since = self.shared.registry.now(),
                false => {}
            }
            details.ghosts = matches!(&self.second, Second::Ready { state, .. } if !state.locks.is_empty());
            details.locks = details.ghosts || !self.holdings.locks.is_empty();
            details.presence = self.holdings.needs_presence().is_some();
        }
    }

    /// Answers those who wait for the second upstream, when there is an answer.
    pub(super) fn answer_warm(&mut self) {
        if self.warm_replies.is_empty() && !self.urgent {
            return;
        }
        let answer = match &self.second {
            _ if self.replication => WarmAnswer::Pinned,
            _ if self.target.is_none() || self.target == self.side() => WarmAnswer::Ready,
            Second::Failed(why) => WarmAnswer::Failed(why.clone()),
            _ if self.holdings.is_current() && self.holdings.is_pinned() => WarmAnswer::Pinned,
            Second::Ready { upstream, state } if self.fits(upstream, state) => WarmAnswer::Ready,
            _ => return,
        };
        self.urgent = false;
        // First: who has our answer looks at once at what is published.
        self.publish();
        for reply in self.warm_replies.drain(..) {
            let _ = reply.try_send((self.entry.id, answer.clone()));
        }
    }

    /// Acts on what interrupted the relay.
    pub(super) async fn wake(&mut self, wake: Wake) -> Result<(), End> {
        match wake {
            Wake::Work | Wake::Breath => Ok(()),
            Wake::Command(command) => self.command(command).await,
            Wake::ClientGone(error) => Err(End::Left(error)),
            Wake::ServerGone(error) => Err(End::ServerGone(error)),
            Wake::BadBytes { from_client, error } => Err(End::BadBytes { from_client, error }),
            Wake::Refused => self.take_back().await,
            Wake::WrongSide => self.turn().await.map(drop),
            Wake::Untold => self.tell_changes().await,
            Wake::SecondLost => {
                self.second = Second::None;
                self.publish();
                Ok(())
            }
            Wake::Second(result) => self.second_is_there(*result).await,
        }
    }

    async fn command(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Learn { other, reply } => {
                if !self.replication {
                    learn::learn_beside(&self.shared, &self.origin, other, reply);
                }
            }
            // While clients are held a look is somebody else's to ask for.
            Command::Look { reply } if !self.replication && !self.shared.gate.is_closed() => {
                if self.look_replies.len() < MAX_REPLIES {
                    self.look_replies.push(reply);
                }
            }
            Command::Look { .. } => {}
            Command::Warm { side, reply } => {
                self.target = Some(side);
                self.take_words();
                self.urgent = true;
                if let Second::Failed(_) = self.second {
                    self.second = Second::None;
                }
                if !self.shared.gate.is_closed() {
                    // Passwords may have been changed back meanwhile; in the pause there is no time to try.
                    self.holdings.outdated = None;
                }
                // Who had the lock may have given it back meanwhile.
                self.holdings.unlockable = None;
                if self.warm_replies.len() < MAX_REPLIES {
                    self.warm_replies.extend(reply);
                }
            }
            Command::Cool => {
                self.target = None;
                self.holdings.forget_words();
                self.holdings.outdated = None;
                self.holdings.unlockable = None;
                match std::mem::take(&mut self.second) {
                    Second::Ready { upstream, .. } => upstream.close_later(),
                    Second::Opening { task, .. } if self.upstream.is_some() => task.abort(),
                    // Without a first upstream it is not a second one: the session goes there.
                    opening @ Second::Opening { .. } => self.second = opening,
                    Second::None | Second::Failed(_) => {}
                }
                self.publish();
            }
            Command::Turn { reply } => {
                let turned = self.turn().await;
                let _ = reply.try_send(*turned.as_ref().unwrap_or(&TurnAnswer::Ended));
                turned?;
            }
            Command::Cancel { reply } => self.cancel(reply).await?,
            Command::End { why, reply } => return Err(End::Terminated { why, reply }),
        }
        Ok(())
    }
}
