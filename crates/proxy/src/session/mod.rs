//! Owns one client session: its two legs, what it holds, its place before or behind the gate, its second upstream.
//! Refuses to know other sessions; the console speaks to it through its mailbox.
//!
//! `relay` moves bytes and decides at each message whether it may pass; `work` is what happens between two
//! transactions: looking at the session's state, opening ahead; `turn` changes sides; `ending` says goodbye.

mod again;
mod ask;
mod cancelled;
mod ending;
mod holdings;
mod learn;
mod locks;
mod look;
mod observe;
mod open;
mod opening;
mod parting;
mod prepare_text;
mod rehearse;
mod relay;
mod repertoire;
mod replay;
mod replication;
mod second_try;
mod statements;
mod text;
mod turn;
mod vocabulary;
mod walk;
mod work;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use pgteal_wire::startup::StartupMessage;
use pgteal_wire::tracker::{Fate, Tracker};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::auth::Credentials;
use crate::buffer::Window;
use crate::gate::{Before, Pass};
use crate::registry::{Entry, WarmAnswer};
use crate::route::{Route, Side};
use crate::shards::Place;
use crate::shared::Shared;
use crate::stream::{Readable, Stream};
use crate::upstream::{Params, Upstream};

use again::Again;
use cancelled::Dropping;
use ending::End;
use holdings::Holdings;
pub(crate) use open::{OpenError, open_first};
use relay::Wake;
use replay::{RefusedStatement, State};
pub(crate) use vocabulary::Vocabulary;
use walk::Walk;

/// Whose session it is: everything needed to log in again somewhere else.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) startup: StartupMessage,
    pub(crate) credentials: Credentials,
    /// Which of a side's servers it wants.
    pub(crate) route: Route,
}

impl Origin {
    /// The user that logged in.
    pub(crate) fn user(&self) -> &[u8] {
        self.startup.user().unwrap_or_default()
    }

    /// Whether the client asked for a replication connection.
    pub(crate) fn is_replication(&self) -> bool {
        self.startup.is_replication()
    }
}

/// The upstream on the other side, opened ahead.
#[derive(Debug, Default)]
enum Second {
    #[default]
    None,
    Opening {
        side: Side,
        task: JoinHandle<Result<(Upstream, State), OpenError>>,
    },
    Ready {
        upstream: Box<Upstream>,
        state: Box<State>,
    },
    Failed(String),
}

/// One client session.
#[derive(Debug)]
pub(crate) struct Session {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    /// Its mailbox wakes the task that it runs in.
    listens: bool,
    origin: Arc<Origin>,
    client: Stream,
    client_readable: Readable,
    server_readable: Readable,
    /// `None` only after a repoint, until the new one is open.
    upstream: Option<Upstream>,
    /// Bytes from the client to the server, and back.
    up: Window,
    down: Window,
    up_walk: Walk,
    down_walk: Walk,
    fate: Fate,
    tracker: Tracker,
    holdings: Holdings,
    pass: Pass,
    before: Option<Before>,
    /// What may have to be said again.
    again: Option<Box<Again>>,
    /// Bytes that are still to come of a message of the server's that is for nobody.
    nobodys: usize,
    /// A cancelled unit is being dropped.
    dropping: Option<Dropping>,
    second: Second,
    /// Statements that the other side refused: is it the other side, or are they broken here as well?
    doubtful: Vec<RefusedStatement>,
    /// The side to be ready for.
    target: Option<Side>,
    /// Somebody waits for the second upstream: no patience with staleness.
    urgent: bool,
    /// What the client was last told of the server's settings, while there is no upstream.
    told: Params,
    /// What the client knows of the server's settings, if it was not told yet what is different here.
    untold: Option<Params>,
    warm_replies: Vec<mpsc::Sender<(u64, WarmAnswer)>>,
    /// Those who want to know what it holds.
    look_replies: Vec<mpsc::Sender<()>>,
    looked_at: Option<Instant>,
    /// Its own timeouts are too short to look at it.
    hurried: bool,
    rehearsed_at: Option<Instant>,
    /// The client has said Terminate.
    leaving: bool,
    /// The server has said why it ends the session.
    server_said_why: bool,
    /// Writing to the server failed: only what it still says is read.
    server_deaf: bool,
    replication: bool,
    /// It began under the fence, so it may be read-only by default without having asked for that.
    read_only_by_fence: bool,
    /// A reader that has been sent to a primary: it is on primaries from then on.
    stays: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.registry.remove(&self.entry);
        self.entry.mailbox.close();
        if let Second::Opening { task, .. } = &self.second {
            task.abort();
        }
    }
}

impl Session {
    /// A session whose client was told that it is ready.
    pub(crate) fn new(
        shared: Arc<Shared>,
        entry: Arc<Entry>,
        origin: Arc<Origin>,
        client: Stream,
        upstream: Upstream,
    ) -> Self {
        let size = shared.config.limits.buffer_bytes;
        let replication = origin.is_replication();
        let pass = Pass::outside(Arc::clone(&shared.gate));
        {
            let mut details = entry.details();
            details.side = Some(upstream.course.side);
            details.cancel = upstream.cancel.clone();
            if replication {
                details.pins = vec!["a replication connection".into()];
            }
        }
        upstream.ticket.belongs_to(entry.id);
        shared.registry.add(Arc::clone(&entry));
        let stays = origin.route == Route::Read && upstream.ticket.replica().is_none();
        let read_only_by_fence = shared.gate.is_at_risk()
            && !stays
            && second_try::is_read_only(&upstream.params)
            && !open::sets_read_only(&origin.startup);
        // After the registry: a WARM that comes now either finds us there or has set the side already.
        let target = shared.warm_side().filter(|side| *side != upstream.course.side);
        let mut session = Self {
            shared,
            entry,
            listens: false,
            origin,
            client,
            client_readable: Readable::default(),
            server_readable: Readable::default(),
            upstream: Some(upstream),
            up: Window::new(size),
            down: Window::new(size),
            up_walk: Walk::default(),
            down_walk: Walk::default(),
            fate: Fate::Taken,
            tracker: Tracker::new(),
            holdings: Holdings::default(),
            pass,
            before: None,
            again: None,
            nobodys: 0,
            dropping: None,
            second: Second::None,
            doubtful: Vec::new(),
            target,
            urgent: false,
            told: Params::default(),
            untold: None,
            warm_replies: Vec::new(),
            look_replies: Vec::new(),
            looked_at: None,
            hurried: false,
            rehearsed_at: None,
            leaving: false,
            server_said_why: false,
            server_deaf: false,
            replication,
            read_only_by_fence,
            stays,
        };
        if session.target.is_some() {
            session.take_words();
        }
        session.take_early();
        session
    }

    /// Serves the client until either leg ends. What is rare waits in memory of its own, taken when it happens.
    pub(crate) async fn run(mut self: Box<Self>, place: Place) {
        let why = self.serve().await;
        Box::pin(self.end(why, place.thread())).await;
        drop(place);
    }

    async fn serve(&mut self) -> End {
        if self.side() != Some(self.shared.gate.course().side)
            && let Err(why) = Box::pin(self.turn()).await
        {
            return why;
        }
        loop {
            if self.has_work() {
                if let Err(why) = Box::pin(self.work()).await {
                    return why;
                }
                continue;
            }
            self.answer_warm();
            // Others have read from them since.
            (self.client_readable, self.server_readable) = Default::default();
            let wake = std::future::poll_fn(|cx| self.poll_relay(cx)).await;
            if let Wake::Breath = wake {
                tokio::task::yield_now().await;
                continue;
            }
            if let Err(why) = Box::pin(self.wake(wake)).await {
                return why;
            }
        }
    }

    /// Nothing is under way between client and server.
    fn at_rest(&self) -> bool {
        self.tracker.at_boundary()
            && !self.pass.inside
            && self.up_walk.between_messages()
            && self.hears_whole_messages()
            && !self.up.has_cleared()
    }

    /// Whether the client leaves its upstream as one that another client may have.
    fn leaves_upstream(&self) -> bool {
        let sound = !self.server_said_why && !self.server_deaf && !self.holdings.leaves_traces();
        let upstream = self.upstream.as_ref().filter(|upstream| upstream.early.is_empty());
        // What answers this client late must not answer the next one.
        let sound = sound && !self.tracker.may_hear_surplus();
        sound && self.at_rest() && upstream.is_some_and(|upstream| self.shared.pool.wants(upstream))
    }

    /// The side that the session is on, or is being brought to.
    fn side(&self) -> Option<Side> {
        match (&self.upstream, &self.second) {
            (Some(upstream), _) => Some(upstream.course.side),
            (None, Second::Opening { side, .. }) => Some(*side),
            (None, _) => None,
        }
    }

    fn leave_gate(&mut self) {
        self.pass.leave();
        self.entry.inside_since.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn size_of_task<F: Future>(_: impl Fn(Box<Session>, Place) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_session_that_waits_takes_little_memory() {
        let (session, task) = (size_of::<Session>(), size_of_task(Session::run));
        assert!(session <= 1536 && task <= 256, "{session} and {task} bytes");
    }
}
