//! Owns the replicas that readers are sent to: which one is next, how many connections each has, what is thought of it.
//! Refuses to open connections for clients.
//!
//! `trail` tells how far behind a replica is, `health` what is thought of it, `check` asks the servers, and `wish`
//! reads which route a client wants.

mod check;
mod health;
mod trail;
mod wish;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::auth::{Target, TargetError};
use crate::config::{Config, ConfigError, ReadFallback, ReadsConfig, ServerConfig};
use crate::route::Side;

pub(crate) use check::{identify, watch};
pub(crate) use health::Standing;
use health::{Health, Seen};
use trail::{Position, Trail};
pub(crate) use wish::take as take_wish;

/// Why replicas cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplicaError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// One replica.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) config: ServerConfig,
    pub(crate) target: Arc<Target>,
    connections: AtomicUsize,
    health: Mutex<Health>,
    /// Somebody met trouble there: it is to be checked now.
    pub(crate) suspected: Notify,
}

/// The replicas of one side, and what is known of their primary.
#[derive(Debug)]
pub(crate) struct Replicas {
    primary: Option<Arc<Target>>,
    all: Vec<Arc<Replica>>,
    /// The place of the one that had the last turn; held by who chooses.
    last: Mutex<usize>,
    trail: Mutex<Trail>,
    /// 0: not known.
    system: AtomicU64,
    /// The lag of a replica that takes sessions is bounded.
    bounded: bool,
    /// Told after each check.
    checked: watch::Sender<()>,
}

/// One connection's place on a replica.
#[derive(Debug)]
pub(crate) struct Berth(Arc<Replica>);

/// The replicas of both sides.
#[derive(Debug)]
pub(crate) struct Reads {
    blue: Replicas,
    green: Replicas,
    pub(crate) config: ReadsConfig,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Berth {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, SeqCst);
    }
}

impl Berth {
    pub(crate) fn replica(&self) -> &Arc<Replica> {
        &self.0
    }
}

impl Replica {
    /// Connections of clients there are to it, also those that are being opened or closed.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// What is thought of it, and how far behind it was at the last check.
    pub(crate) fn standing(&self) -> (Standing, Option<Duration>) {
        let health = lock(&self.health);
        (health.standing.clone(), health.lag)
    }

    /// Host and port, or the socket's path.
    pub(crate) fn shown(&self) -> String {
        self.target.shown()
    }

    fn rank(&self, bounded: bool) -> Option<u8> {
        lock(&self.health).rank(bounded)
    }

    /// It did not answer.
    pub(crate) fn failed(&self, why: String) {
        if lock(&self.health).failed(why.clone()) {
            tracing::warn!(replica = self.shown(), why, "a replica gets no new sessions");
        }
    }

    fn answered(&self, seen: Seen, max_lag: Option<Duration>) {
        let mut health = lock(&self.health);
        if health.answered(seen, max_lag) {
            let (standing, lag_ms) = (health.standing.shown(), seen.lag.map(|lag| lag.as_millis()));
            tracing::info!(replica = self.shown(), standing, lag_ms, "a replica");
        }
    }
}

impl Replicas {
    fn new(
        server: Option<&ServerConfig>,
        iterations: u32,
        primary: Option<&Arc<Target>>,
        bounded: bool,
    ) -> Result<Self, ReplicaError> {
        let mut all = Vec::new();
        for config in server.map(ServerConfig::replicas).transpose()?.unwrap_or_default() {
            let target = Arc::new(Target::new(&config, iterations)?);
            all.push(Arc::new(Replica {
                config,
                target,
                connections: AtomicUsize::new(0),
                health: Mutex::default(),
                suspected: Notify::new(),
            }));
        }
        Ok(Self {
            primary: primary.map(Arc::clone),
            all,
            last: Mutex::default(),
            trail: Mutex::default(),
            system: AtomicU64::new(0),
            bounded,
            checked: watch::Sender::new(()),
        })
    }

    pub(crate) fn all(&self) -> &[Arc<Replica>] {
        &self.all
    }

    /// A place on the one that takes sessions and has the fewest connections, of those not tried yet; among equals in
    /// turns.
    pub(crate) fn choose(&self, tried: &[Arc<Replica>]) -> Option<Berth> {
        let mut last = lock(&self.last);
        let count = self.all.len();
        let in_turn = (1..=count).map(|step| (*last + step) % count.max(1));
        let fit = in_turn.filter_map(|at| {
            let replica = self.all.get(at)?;
            let is_tried = tried.iter().any(|one| Arc::ptr_eq(one, replica));
            let rank = if is_tried { None } else { replica.rank(self.bounded) };
            Some(((rank?, replica.connections()), at, replica))
        });
        // The first of equals.
        let (_, at, replica) = fit.min_by_key(|(order, ..)| *order)?;
        *last = at;
        replica.connections.fetch_add(1, SeqCst);
        Some(Berth(Arc::clone(replica)))
    }

    /// Waits until the first of them is known to take sessions, or each was checked: who comes right after a start is not to
    /// be sent elsewhere for its life because nobody has asked yet.
    pub(crate) async fn heard(&self, limit: Duration) {
        let is_best = |replica: &Arc<Replica>| replica.rank(self.bounded) == Some(0);
        let is_new = |replica: &Arc<Replica>| lock(&replica.health).is_new();
        let is_heard = |(): &()| self.all.iter().any(is_best) || !self.all.iter().any(is_new);
        if !is_heard(&()) {
            let _ = tokio::time::timeout(limit, self.checked.subscribe().wait_for(is_heard)).await;
        }
    }

    /// Whether any that was not tried takes sessions, as far as is known.
    pub(crate) fn has_more(&self, tried: &[Arc<Replica>]) -> bool {
        let is_tried = |replica| tried.iter().any(|one| Arc::ptr_eq(one, replica));
        self.all.iter().any(|replica| !is_tried(replica) && replica.rank(self.bounded).is_some())
    }

    /// What is thought of each.
    pub(crate) fn shown(&self, max_lag: Option<Duration>) -> String {
        let shown = |replica: &Arc<Replica>| {
            let (standing, lag) = replica.standing();
            let lag = lag.filter(|_| standing == Standing::Behind).zip(max_lag);
            let lag =
                lag.map(|(lag, most)| format!(" by {} ms, over {} ms", lag.as_millis(), most.as_millis()));
            format!("{} is {}{}", replica.shown(), standing.shown(), lag.unwrap_or_default())
        };
        let all: Vec<_> = self.all.iter().map(shown).collect();
        if all.is_empty() { "it has none".into() } else { all.join("; ") }
    }

    fn primary_is_at(&self, position: Option<Position>, system: Option<u64>) {
        if let Some(position) = position {
            lock(&self.trail).is_at(position, Instant::now());
        }
        self.system.store(system.unwrap_or(0), SeqCst);
    }

    fn lag(&self, replayed: Position, oldest: Option<Duration>) -> Option<Duration> {
        lock(&self.trail).behind(replayed, oldest, Instant::now())
    }

    fn is_foreign(&self, system: Option<u64>) -> bool {
        let known = self.system.load(SeqCst);
        known != 0 && system.is_some_and(|system| system != known)
    }
}

impl Reads {
    /// Reads the settings of every replica.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub(crate) fn new(
        config: &Config,
        blue: &Arc<Target>,
        green: Option<&Arc<Target>>,
    ) -> Result<Self, ReplicaError> {
        let (iterations, bounded) = (config.auth.max_scram_iterations, config.reads.max_lag().is_some());
        Ok(Self {
            blue: Replicas::new(Some(&config.blue), iterations, Some(blue), bounded)?,
            green: Replicas::new(config.green.as_ref(), iterations, green, bounded)?,
            config: config.reads.clone(),
        })
    }

    pub(crate) const fn of(&self, side: Side) -> &Replicas {
        match side {
            Side::Blue => &self.blue,
            Side::Green => &self.green,
        }
    }

    /// Every replica.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Replica>> {
        self.blue.all.iter().chain(&self.green.all)
    }

    /// Whether a reader whom no replica takes is sent to the primary.
    pub(crate) fn falls_back(&self) -> bool {
        self.config.fallback == ReadFallback::Primary
    }

    /// Whether a reader that has a connection to this replica ahead is to be sent elsewhere: it takes none any more, and
    /// another server does.
    pub(crate) fn is_left(&self, side: Side, replica: &Arc<Replica>) -> bool {
        let replicas = self.of(side);
        replica.rank(replicas.bounded).is_none() && (self.falls_back() || replicas.has_more(&[]))
    }

    /// Why readers would be refused on a side, when they would. Of a replica that nobody has heard yet, nobody knows.
    pub(crate) fn refusal(&self, side: Side) -> Option<String> {
        let replicas = self.of(side);
        if self.falls_back() || replicas.all.iter().any(|replica| replica.standing().0 == Standing::Fit) {
            return None;
        }
        Some(format!("no replica of {side} takes sessions: {}", replicas.shown(self.config.max_lag())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn replicas(count: u16) -> Replicas {
        let config = ServerConfig {
            host: "127.0.0.1".into(),
            replicas: (1..=count).map(|port| format!("127.0.0.1:{port}")).collect(),
            ..ServerConfig::default()
        };
        Replicas::new(Some(&config), 4096, None, false).unwrap()
    }

    fn port(berth: &Berth) -> u16 {
        berth.replica().config.port
    }

    const LEVEL: Seen = Seen { in_recovery: true, is_foreign: false, lag: Some(Duration::ZERO) };

    #[test]
    fn the_one_with_the_fewest_connections_is_next_and_equals_have_turns() {
        let replicas = replicas(3);
        replicas.all.iter().for_each(|replica| replica.answered(LEVEL, None));
        let mut berths: Vec<_> = (0..30).map(|_| replicas.choose(&[]).unwrap()).collect();
        assert!(replicas.all.iter().all(|replica| replica.connections() == 10));
        // Those of one replica leave: the next ones go there.
        berths.retain(|berth| port(berth) != 2);
        assert_eq!(replicas.all[1].connections(), 0);
        berths.extend((0..10).map(|_| replicas.choose(&[]).unwrap()));
        assert!(replicas.all.iter().all(|replica| replica.connections() == 10));
        drop(berths);
        // One after the other on idle replicas: each has its turn.
        let mut ports: Vec<_> = (0..3).map(|_| port(&replicas.choose(&[]).unwrap())).collect();
        ports.sort_unstable();
        assert_eq!(ports, [1, 2, 3]);
    }

    #[test]
    fn who_is_not_fit_or_was_tried_is_not_chosen() {
        let replicas = replicas(3);
        let [one, two, three] = replicas.all.as_slice() else { panic!() };
        one.answered(LEVEL, None);
        two.answered(LEVEL, None);
        three.answered(Seen { lag: Some(Duration::from_secs(2)), ..LEVEL }, Some(Duration::from_secs(1)));
        two.failed("gone".into());
        // Who did not answer a moment ago comes after who did, however many that one has.
        let berths: Vec<_> = (0..5).map(|_| replicas.choose(&[]).unwrap()).collect();
        assert!(berths.iter().all(|berth| port(berth) == 1));
        let tried = [Arc::clone(one)];
        assert_eq!(replicas.choose(&tried).map(|berth| port(&berth)), Some(2));
        two.failed("gone".into());
        two.failed("gone".into());
        assert!(replicas.choose(&tried).is_none());
        assert_eq!(
            replicas.shown(Some(Duration::from_secs(1))),
            "127.0.0.1:1 is fit; 127.0.0.1:2 is down: gone; 127.0.0.1:3 is behind by 2000 ms, over 1000 ms"
        );
    }
}
