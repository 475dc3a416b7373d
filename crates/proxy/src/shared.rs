//! Owns what every part of one running proxy shares. Refuses to do anything with it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

use crate::auth::Target;
use crate::config::Config;
use crate::farewell::Farewell;
use crate::gate::Gate;
use crate::lobby::Lobby;
use crate::login::Login;
use crate::pool::Pool;
use crate::quota::Quota;
use crate::reads::{Berth, Reads};
use crate::recorder::Recorder;
use crate::registry::Registry;
use crate::roll::{Line, Roll, Use};
use crate::route::Side;
use crate::session::Vocabulary;
use crate::stats::Stats;
use crate::takeover::Takeover;

/// The common ground.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) blue: Arc<Target>,
    pub(crate) green: Option<Arc<Target>>,
    /// The replicas of both.
    pub(crate) reads: Reads,
    pub(crate) gate: Arc<Gate>,
    pub(crate) registry: Registry,
    pub(crate) stats: Stats,
    /// Connections that are no sessions yet.
    pub(crate) lobby: Arc<Lobby>,
    /// How many clients there are.
    pub(crate) quota: Arc<Quota>,
    /// Connections to servers.
    pub(crate) roll: Arc<Roll>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) login: Login,
    /// Held by who reads certificates again.
    pub(crate) reloading: Mutex<()>,
    /// Upstreams that lie idle between two clients.
    pub(crate) pool: Pool,
    /// Upstreams that sessions have left for the other side.
    pub(crate) farewell: Arc<Farewell>,
    /// Bounds how many upstreams are opened ahead at once.
    pub(crate) warming: Arc<Semaphore>,
    /// What upstreams are opened ahead for.
    pub(crate) warm_side: WarmSide,
    /// Processes before and after this one.
    pub(crate) takeover: Takeover,
}

/// The side that upstreams are opened on ahead, and what was learned of the databases for it.
#[derive(Debug, Default)]
pub(crate) struct WarmSide {
    /// 0 none, 1 blue, 2 green.
    side: AtomicU8,
    words: Mutex<HashMap<String, Arc<Vocabulary>>>,
    unknown: Arc<Vocabulary>,
}

impl WarmSide {
    pub(crate) fn get(&self) -> Option<Side> {
        match self.side.load(SeqCst) {
            1 => Some(Side::Blue),
            2 => Some(Side::Green),
            _ => None,
        }
    }

    pub(crate) fn set(&self, side: Option<Side>) {
        let value = match side {
            None => 0,
            Some(Side::Blue) => 1,
            Some(Side::Green) => 2,
        };
        self.side.store(value, SeqCst);
    }

    /// What was learned takes the place of what was known.
    pub(crate) fn learned(&self, words: HashMap<String, Arc<Vocabulary>>) {
        *self.words.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }

    /// The vocabulary of a database.
    pub(crate) fn words(&self, database: &str) -> Arc<Vocabulary> {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(words.get(database).unwrap_or(&self.unknown))
    }
}

impl Shared {
    pub(crate) const fn server(&self, side: Side) -> Option<&Arc<Target>> {
        match side {
            Side::Blue => Some(&self.blue),
            Side::Green => self.green.as_ref(),
        }
    }

    /// Reads certificates and keys of both legs again, on a thread that may wait for a disk. Answers what could not be used;
    /// what was read before stays there.
    pub(crate) async fn reload(shared: &Arc<Self>) -> Vec<String> {
        let of = Arc::clone(shared);
        let read = tokio::task::spawn_blocking(move || of.read_again()).await;
        read.unwrap_or_else(|error| vec![error.to_string()])
    }

    fn read_again(&self) -> Vec<String> {
        // One after the other, so that what was read last is what stays.
        let _one = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let front = [self.login.tls(), self.login.admin_tls()].into_iter().flatten();
        let front = front.filter_map(|tls| tls.reload().err()).map(|error| error.to_string());
        let primaries = [Some(&self.blue), self.green.as_ref()].into_iter().flatten();
        let servers = primaries.chain(self.reads.all().map(|replica| &replica.target));
        let back = servers.filter_map(|server| server.reload().err()).map(|error| error.to_string());
        let refused: Vec<String> = front.chain(back).collect();
        for reason in &refused {
            tracing::error!(reason, "not read again, what was read before stays");
        }
        // What was opened before may have been opened by what is no longer shown or trusted, also what clients have now.
        self.pool.hold().into_iter().for_each(|upstream| self.farewell.leave(upstream));
        if refused.is_empty() {
            tracing::info!("certificates and keys are read again");
        }
        refused
    }

    /// Marks sessions whose connection ahead goes to a replica that takes none any more: it is opened again elsewhere.
    pub(crate) fn mark_left(&self) {
        if self.reads.all().next().is_none() {
            return;
        }
        let is_left = |line: &Line| {
            let replica = line.berth.as_ref().map(Berth::replica);
            line.used_for() == Use::Ahead
                && replica.is_some_and(|replica| self.reads.is_left(line.side, replica))
        };
        let lines = self.roll.all();
        let left: HashSet<u64> =
            lines.iter().filter(|line| is_left(line)).filter_map(|line| line.session()).collect();
        if !left.is_empty() {
            let all = self.registry.all();
            all.iter().filter(|one| left.contains(&one.id)).for_each(|one| one.stale.store(true, Relaxed));
        }
    }

    pub(crate) fn warm_side(&self) -> Option<Side> {
        self.warm_side.get()
    }
}
