//! Owns what every step acts on: the two clusters, the routers in front, the provider of green and the
//! settings of the run. Refuses to remember what a step did: that is in the servers and in the journal.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use pgteal_postgres::fence::{Fence, Seal, Staged};
use pgteal_postgres::{ConnInfo, Error, Lsn, Server, Session};
use pgteal_saga::{Cx, StepError};

use crate::carry::sequences::Carrier;
use crate::carry::{Author, Dump};
use crate::checks::Waiver;
use crate::deployment::{DatabaseKey, DeploymentId, Side, Stream, stream_name};
use crate::failure;
use crate::providers::Provider;
use crate::router::{Router, RouterError};

/// Between two sessions of ours that are closed.
const PART_PAUSE: Duration = Duration::from_millis(10);

/// What happens to client transactions that are still open when the drain budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDrain {
    /// Wait until the deadline of the cutover, then unwind.
    Wait,
    /// End them with SQLSTATE 57P01 and go on.
    Terminate,
    /// Unwind at once.
    Abort,
}

/// The limits of a run. All come from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// From the hold to the repoint; when it passes before the point of no return, everything is put back.
    pub deadline: Duration,
    /// How long clients are held for transactions that are still open; half of it is the age up to which a
    /// moment is calm enough to begin.
    pub drain_budget: Duration,
    /// What happens when the budget is spent.
    pub on_drain: OnDrain,
    /// How long to wait for a calm moment before acting by policy.
    pub calm_wait: Duration,
    /// Lag above which a switchover does not begin, in bytes of WAL.
    pub max_lag_bytes: u64,
    /// WAL that our slots may make a server retain, in bytes, before the run stops.
    pub wal_fuse_bytes: u64,
    /// A trial marker must come back within this before a hold begins.
    pub trial_bound: Duration,
    /// How long catching up may take without any progress.
    pub stall_bound: Duration,
    /// How many tables are copied at once.
    pub copy_workers: u32,
    /// How many indexes are built at once.
    pub index_jobs: usize,
    /// Findings that the operator has decided to live with.
    pub waivers: Vec<Waiver>,
}

impl Settings {
    /// The age of the oldest client transaction up to which a moment is calm: half of the drain budget, because one just
    /// under the budget when looked at would use it up.
    #[must_use]
    pub fn calm_below(&self) -> Duration {
        self.drain_budget / 2
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(3),
            drain_budget: Duration::from_millis(500),
            on_drain: OnDrain::Abort,
            calm_wait: Duration::from_secs(60),
            max_lag_bytes: 16 << 20,
            wal_fuse_bytes: 16 << 30,
            trial_bound: Duration::from_millis(250),
            stall_bound: Duration::from_secs(120),
            copy_workers: 2,
            index_jobs: 2,
            waivers: Vec::new(),
        }
    }
}

/// A marker that is being written; its number comes with its commit.
pub(crate) type SentMarker = tokio::task::JoinHandle<Result<i64, Error>>;

/// One of the two clusters.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Which of the two.
    pub side: Side,
    /// How we reach it.
    pub server: Server,
    /// How the other cluster reaches it, for its subscription. Holds a password; never printed.
    pub replication: ConnInfo,
}

/// Everything that the steps of one run act on.
pub struct World {
    /// The deployment's id, from which all our names derive.
    pub deployment: DeploymentId,
    /// The databases of the deployment, frozen when it was planned.
    pub databases: Vec<DatabaseKey>,
    /// The cluster that served when the deployment began.
    pub blue: Cluster,
    /// The cluster prepared to replace it.
    pub green: Cluster,
    /// Whatever sends clients to a side.
    pub routers: Vec<Arc<dyn Router>>,
    /// Where green comes from.
    pub provider: Arc<dyn Provider>,
    /// Blue's schema as it was dumped for green.
    pub dump: Dump,
    /// Limits.
    pub settings: Settings,
    /// The side that the operator has given up for good, if any.
    lost: Option<Side>,
    /// Positions on the receiving side, at or after everything that it has applied, made durable there by
    /// this process. Only a hint that saves work: without it the step is done again.
    flushed: Mutex<HashMap<String, Lsn>>,
    /// What was done ahead for the sequences of each database, by this process. Also a hint: without it they are all
    /// carried in the pause.
    carriers: Mutex<HashMap<String, Arc<Carrier>>>,
    /// Markers that the fence sent right behind itself and that are on their way. Also a hint: without it one is written.
    markers: Mutex<HashMap<String, SentMarker>>,
    /// The databases whose last values were carried in this pause, by this process.
    settled: Mutex<HashSet<String>>,
    /// Whether this process has seen the transactions from before the fence go. A raised fence alone does not tell.
    writers_gone: AtomicBool,
    /// Whether this process has waited for a calm moment in vain. Also a hint: without it the wait is done again.
    waited: AtomicBool,
    /// Whether this process went through the cutover's work on both servers ahead. Also a hint.
    warm: AtomicBool,
    /// Whether this process brought up to date what replication does not, on the side that clients go to.
    fresh: AtomicBool,
    /// The schemas that this process keeps as they are, by database.
    seals: Mutex<HashMap<String, Arc<Seal>>>,
    /// Whether the guardrails were looked at under these seals.
    guarded: AtomicBool,
    /// Whether the fence of a side was just looked at, everywhere and after its change, and is as it should be. Good for one
    /// answer: it was asked in the same breath as the change, and asking again is a round trip that clients pay for.
    seen: [AtomicBool; 2],
    /// Fences that only wait for their commit, by side and database. Also a hint: without it the work is done in the pause.
    staged: Mutex<HashMap<(Side, String), Arc<Staged>>>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({}, {} databases)", self.deployment, self.databases.len())
    }
}

impl World {
    /// Puts a world together. Opens no connection.
    #[must_use]
    pub fn new(
        deployment: DeploymentId,
        databases: Vec<DatabaseKey>,
        clusters: (Cluster, Cluster),
        routers: Vec<Arc<dyn Router>>,
        (provider, dump): (Arc<dyn Provider>, Dump),
        settings: Settings,
    ) -> Self {
        let (blue, green) = clusters;
        Self {
            deployment,
            databases,
            blue,
            green,
            routers,
            provider,
            dump,
            settings,
            lost: None,
            flushed: Mutex::default(),
            carriers: Mutex::default(),
            markers: Mutex::default(),
            settled: Mutex::default(),
            writers_gone: AtomicBool::new(false),
            waited: AtomicBool::new(false),
            warm: AtomicBool::new(false),
            fresh: AtomicBool::new(false),
            seals: Mutex::default(),
            guarded: AtomicBool::new(false),
            seen: Default::default(),
            staged: Mutex::default(),
        }
    }

    /// The same world with a side given up for good: steps that take back or retire leave that side as it is, and nothing
    /// they record says what is there.
    #[must_use]
    pub fn without(mut self, lost: Option<Side>) -> Self {
        self.lost = lost;
        self
    }

    /// The side that the operator has given up for good, if any.
    #[must_use]
    pub fn lost(&self) -> Option<Side> {
        self.lost
    }

    /// Whether the operator has given the side up for good.
    pub(crate) fn is_lost(&self, side: Side) -> bool {
        self.lost == Some(side)
    }

    /// The cluster of a side.
    #[must_use]
    pub fn cluster(&self, side: Side) -> &Cluster {
        match side {
            Side::Blue => &self.blue,
            Side::Green => &self.green,
        }
    }

    /// The role that we are on a side.
    pub(crate) fn role(&self, side: Side) -> &str {
        self.cluster(side).server.conninfo().user()
    }

    /// The fence of this deployment on a side.
    pub(crate) fn fence(&self, side: Side) -> Fence {
        Fence::new(self.deployment.as_str(), self.role(side))
    }

    /// In whose name a run remembers things on the servers.
    pub(crate) fn author(&self, cx: &Cx) -> Author {
        Author { deployment: self.deployment.clone(), epoch: cx.epoch().0 }
    }

    /// The warm control session to a database of a side.
    pub(crate) async fn session(&self, side: Side, database: &DatabaseKey) -> Result<Session, Error> {
        self.cluster(side).server.warm(&database.name).await
    }

    /// The name of a stream's objects in one database.
    pub(crate) fn stream(&self, stream: Stream, database: &DatabaseKey) -> String {
        stream_name(&self.deployment, stream, database)
    }

    /// Runs `work` in every database of a side at once, over the warm sessions; the first error wins.
    pub(crate) async fn each<'w, T, F>(
        &'w self,
        side: Side,
        work: impl Fn(Session, &'w DatabaseKey) -> F,
    ) -> Result<Vec<T>, StepError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let one = |database: &'w DatabaseKey| {
            let work = &work;
            async move {
                let session = self.session(side, database).await?;
                work(session, database).await
            }
        };
        try_join_all(self.databases.iter().map(one)).await.map_err(|error| failure::server(&error))
    }

    /// As [`World::each`], one database after the other: for heavy work while clients are served, who want the processor too.
    pub(crate) async fn in_turn<'w, T, F>(
        &'w self,
        side: Side,
        work: impl Fn(Session, &'w DatabaseKey) -> F,
    ) -> Result<Vec<T>, StepError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut answers = Vec::with_capacity(self.databases.len());
        for database in &self.databases {
            let one = async { work(self.session(side, database).await?, database).await };
            answers.push(one.await.map_err(|error| failure::server(&error))?);
        }
        Ok(answers)
    }

    /// Whether `look` is true in every database of a side.
    pub(crate) async fn all<'w, F>(
        &'w self,
        side: Side,
        look: impl Fn(Session, &'w DatabaseKey) -> F,
    ) -> Result<bool, StepError>
    where
        F: Future<Output = Result<bool, Error>>,
    {
        Ok(self.each(side, look).await?.into_iter().all(|yes| yes))
    }

    /// Runs `work` with every router at once; the first error wins.
    pub(crate) async fn routers<'w, T, F>(
        &'w self,
        work: impl Fn(&'w Arc<dyn Router>) -> F,
    ) -> Result<Vec<T>, StepError>
    where
        F: Future<Output = Result<T, RouterError>>,
    {
        try_join_all(self.routers.iter().map(work)).await.map_err(|error| failure::router(&error))
    }

    /// Notes that everything applied in `database` up to `lsn` is durable on the receiving side.
    pub(crate) fn note_flushed(&self, database: &DatabaseKey, lsn: Lsn) {
        let mut flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        flushed.insert(database.name.clone(), lsn);
    }

    /// Notes what was done ahead for a database's sequences.
    pub(crate) fn note_carrier(&self, database: &DatabaseKey, carrier: Arc<Carrier>) {
        self.carriers.lock().unwrap_or_else(PoisonError::into_inner).insert(database.name.clone(), carrier);
    }

    /// What [`World::note_carrier`] was last told, in this process.
    pub(crate) fn carrier(&self, database: &DatabaseKey) -> Option<Arc<Carrier>> {
        self.carriers.lock().unwrap_or_else(PoisonError::into_inner).get(&database.name).cloned()
    }

    /// Notes the marker that the fence sent right behind itself, if it came after every writer.
    pub(crate) fn note_marker(&self, database: &DatabaseKey, sent: Option<SentMarker>) {
        let mut markers = self.markers.lock().unwrap_or_else(PoisonError::into_inner);
        match sent {
            Some(sent) => markers.insert(database.name.clone(), sent),
            None => markers.remove(&database.name),
        };
    }

    /// What [`World::note_marker`] was last told, once.
    pub(crate) fn take_marker(&self, database: &DatabaseKey) -> Option<SentMarker> {
        self.markers.lock().unwrap_or_else(PoisonError::into_inner).remove(&database.name)
    }

    /// Notes that a database's last values were carried.
    pub(crate) fn note_settled(&self, database: &DatabaseKey) {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner).insert(database.name.clone());
    }

    /// Whether [`World::note_settled`] was called in this process.
    pub(crate) fn is_settled(&self, database: &DatabaseKey) -> bool {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner).contains(&database.name)
    }

    /// Notes whether every transaction that could still write when the fence was raised is gone.
    pub(crate) fn note_writers_gone(&self, gone: bool) {
        self.writers_gone.store(gone, Ordering::SeqCst);
    }

    /// What [`World::note_writers_gone`] was last told, in this process.
    pub(crate) fn are_writers_gone(&self) -> bool {
        self.writers_gone.load(Ordering::SeqCst)
    }

    /// Notes that the wait for a calm moment is over and the drain policy decides.
    pub(crate) fn note_waited_for_calm(&self) {
        self.waited.store(true, Ordering::Relaxed);
    }

    /// Whether [`World::note_waited_for_calm`] was called in this process.
    pub(crate) fn waited_for_calm(&self) -> bool {
        self.waited.load(Ordering::Relaxed)
    }

    /// Notes that the sessions of both servers have done once what the cutover will ask of them.
    pub(crate) fn note_servers_warm(&self) {
        self.warm.store(true, Ordering::Relaxed);
    }

    /// Whether [`World::note_servers_warm`] was called in this process.
    pub(crate) fn servers_are_warm(&self) -> bool {
        self.warm.load(Ordering::Relaxed)
    }

    /// Notes that what replication does not carry was brought up to date.
    pub(crate) fn note_fresh(&self) {
        self.fresh.store(true, Ordering::Relaxed);
    }

    /// Whether [`World::note_fresh`] was called in this process.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh.load(Ordering::Relaxed)
    }

    /// Keeps the schema of a database as it is.
    pub(crate) fn note_seal(&self, database: &DatabaseKey, seal: Seal) {
        self.seals().insert(database.name.clone(), Arc::new(seal));
    }

    /// What keeps the schema of a database as it is.
    pub(crate) fn seal(&self, database: &DatabaseKey) -> Option<Arc<Seal>> {
        self.seals().get(&database.name).cloned()
    }

    /// Lets schemas be changed again.
    pub(crate) async fn unseal(&self) {
        self.guarded.store(false, Ordering::SeqCst);
        let seals = std::mem::take(&mut *self.seals());
        for seal in seals.into_values() {
            if let Err(error) = seal.lift().await {
                // Its session has ended then, and with it the lock.
                tracing::debug!(%error, "a seal was not lifted in order");
            }
        }
    }

    fn seals(&self) -> MutexGuard<'_, HashMap<String, Arc<Seal>>> {
        self.seals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that nothing stands in the way, as seen under the seals.
    pub(crate) fn note_guarded(&self) {
        self.guarded.store(true, Ordering::SeqCst);
    }

    /// Whether [`World::note_guarded`] was called in this process, and the seals were kept since.
    pub(crate) fn is_guarded(&self) -> bool {
        self.guarded.load(Ordering::SeqCst)
    }

    /// Notes whether the fence of a side was seen to be as a change right before should have left it.
    pub(crate) fn note_fence_seen(&self, side: Side, as_it_should_be: bool) {
        self.seen[usize::from(side == Side::Green)].store(as_it_should_be, Ordering::SeqCst);
    }

    /// What [`World::note_fence_seen`] was last told, once.
    pub(crate) fn take_fence_seen(&self, side: Side) -> bool {
        self.seen[usize::from(side == Side::Green)].swap(false, Ordering::SeqCst)
    }

    /// Keeps a fence that only waits for its commit. Its session is kept after that too: a server process that ends
    /// takes time from others in the pause.
    pub(crate) fn stage(&self, side: Side, database: &DatabaseKey, staged: Staged) {
        self.all_staged().insert((side, database.name.clone()), Arc::new(staged));
    }

    /// The fence that waits for its commit, if there is one.
    pub(crate) fn staged(&self, side: Side, database: &DatabaseKey) -> Option<Arc<Staged>> {
        let staged = self.all_staged().get(&(side, database.name.clone())).cloned();
        staged.filter(|staged| staged.is_open())
    }

    /// The session on which a staged fence was committed: it has nothing to do any more.
    pub(crate) fn raised_on(&self, side: Side, database: &DatabaseKey) -> Option<Session> {
        let staged = self.all_staged().get(&(side, database.name.clone())).cloned();
        staged.filter(|staged| !staged.is_open()).map(|staged| staged.session().clone())
    }

    /// Takes back the fences of a side that wait for their commit, and with them the locks they hold.
    pub(crate) async fn unstage(&self, side: Side) {
        for database in &self.databases {
            let Some(staged) = self.staged(side, database) else { continue };
            if let Err(error) = staged.cancel().await {
                // Its session has ended then, and with it the transaction.
                tracing::debug!(%error, "a staged fence was not taken back in order");
            }
        }
    }

    fn all_staged(&self) -> MutexGuard<'_, HashMap<(Side, String), Arc<Staged>>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes all our sessions, one by one: see [`Server::part`]. For the end of a run, when clients are at work.
    pub async fn part(&self) {
        let staged = std::mem::take(&mut *self.all_staged());
        for session in staged.into_values() {
            drop(session);
            tokio::time::sleep(PART_PAUSE).await;
        }
        let seals = std::mem::take(&mut *self.seals());
        for seal in seals.into_values() {
            drop(seal);
            tokio::time::sleep(PART_PAUSE).await;
        }
        self.blue.server.part(PART_PAUSE).await;
        self.green.server.part(PART_PAUSE).await;
    }

    /// What [`World::note_flushed`] was last told, in this process.
    pub(crate) fn flushed(&self, database: &DatabaseKey) -> Option<Lsn> {
        self.flushed.lock().unwrap_or_else(PoisonError::into_inner).get(&database.name).copied()
    }
}
