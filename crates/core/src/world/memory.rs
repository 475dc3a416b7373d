//! Owns what one process knows ahead of the servers, and what it keeps open on them. Refuses to be a proof: without it
//! the same is asked or done again, only later and in the pause, or the run unwinds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgteal_postgres::fence::{Seal, Staged};
use pgteal_postgres::{Error, Lsn, Session};

use super::World;
use super::begun::Begun;
use crate::carry::CarryError;
use crate::carry::sequences::{Carrier, Settled};
use crate::deployment::{DatabaseKey, Side};

/// Between two sessions of ours that are closed.
const PART_PAUSE: Duration = Duration::from_millis(10);

/// A marker that travels: its number, and what came of the wait for a position on the receiving side that is after it
/// and durable there.
type SentMarker = Begun<(i64, Result<Lsn, Error>), Error>;
/// The last sequence values on their way.
type Settling = Begun<Settled, CarryError>;

/// See the module.
#[derive(Default)]
pub(super) struct Memory {
    databases: Mutex<HashMap<String, OfDatabase>>,
    /// Fences that only wait for their commit.
    staged: Mutex<HashMap<(Side, String), Arc<Staged>>>,
    /// The transactions from before the fence were seen to be gone. A raised fence alone does not tell.
    writers_gone: AtomicBool,
    /// A calm moment was waited for in vain.
    waited: AtomicBool,
    /// Both servers went through the cutover's work ahead.
    warm: AtomicBool,
    /// What replication does not carry was brought up to date on the side that clients go to.
    fresh: AtomicBool,
    /// The guardrails were looked at under the seals that are kept.
    guarded: AtomicBool,
    /// The fence of a side was just looked at, everywhere and after its change, and is as it should be. Good for one answer:
    /// it was asked in the same breath as the change, and asking again is a round trip that clients pay for.
    seen: [AtomicBool; 2],
    /// The same of the start of the way back.
    way_seen: AtomicBool,
}

#[derive(Default)]
struct OfDatabase {
    /// A position on the receiving side, at or after everything that it has applied, made durable there.
    flushed: Option<Lsn>,
    /// What was done ahead for the sequences.
    carrier: Option<Arc<Carrier>>,
    /// The marker that the fence sent right behind itself.
    marker: Option<SentMarker>,
    /// The last sequence values, that the fence carries right behind itself.
    settling: Option<Settling>,
    /// The last values were carried in this pause.
    settled: bool,
    /// What keeps the schema as it is.
    seal: Option<Arc<Seal>>,
}

impl Memory {
    fn of<T>(&self, database: &DatabaseKey, act: impl FnOnce(&mut OfDatabase) -> T) -> T {
        let mut all = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        act(all.entry(database.name.clone()).or_default())
    }

    fn staged(&self) -> MutexGuard<'_, HashMap<(Side, String), Arc<Staged>>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_seals(&self) -> Vec<Arc<Seal>> {
        let mut all = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        all.values_mut().filter_map(|database| database.seal.take()).collect()
    }

    fn seen(&self, side: Side) -> &AtomicBool {
        let [blue, green] = &self.seen;
        match side {
            Side::Blue => blue,
            Side::Green => green,
        }
    }
}

impl World {
    /// Notes that everything applied in `database` up to `lsn` is durable on the receiving side.
    pub(crate) fn note_flushed(&self, database: &DatabaseKey, lsn: Lsn) {
        self.memory.of(database, |of| of.flushed = Some(lsn));
    }

    /// What [`World::note_flushed`] was last told, in this process.
    pub(crate) fn flushed(&self, database: &DatabaseKey) -> Option<Lsn> {
        self.memory.of(database, |of| of.flushed)
    }

    /// Notes what was done ahead for a database's sequences.
    pub(crate) fn note_carrier(&self, database: &DatabaseKey, carrier: Arc<Carrier>) {
        self.memory.of(database, |of| of.carrier = Some(carrier));
    }

    /// What [`World::note_carrier`] was last told, in this process.
    pub(crate) fn carrier(&self, database: &DatabaseKey) -> Option<Arc<Carrier>> {
        self.memory.of(database, |of| of.carrier.clone())
    }

    /// Notes the marker that the fence sent right behind itself, if it came after every writer.
    pub(crate) fn note_marker(&self, database: &DatabaseKey, sent: Option<SentMarker>) {
        self.memory.of(database, |of| of.marker = sent);
    }

    /// What [`World::note_marker`] was last told, once.
    pub(crate) fn take_marker(&self, database: &DatabaseKey) -> Option<SentMarker> {
        self.memory.of(database, |of| of.marker.take())
    }

    /// Notes that the last sequence values are being carried, if it was begun after every writer.
    pub(crate) fn note_settling(&self, database: &DatabaseKey, settling: Option<Settling>) {
        self.memory.of(database, |of| of.settling = settling);
    }

    /// What [`World::note_settling`] was last told, once.
    pub(crate) fn take_settling(&self, database: &DatabaseKey) -> Option<Settling> {
        self.memory.of(database, |of| of.settling.take())
    }

    /// Forgets what was begun in this database.
    pub(crate) fn forget_begun(&self, database: &DatabaseKey) {
        self.note_marker(database, None);
        self.note_settling(database, None);
    }

    /// Forgets what was done in this database since its fence was raised.
    pub(crate) fn forget_pause(&self, database: &DatabaseKey) {
        self.forget_begun(database);
        self.memory.of(database, |of| (of.settled, of.flushed) = (false, None));
    }

    /// Notes that a database's last values were carried.
    pub(crate) fn note_settled(&self, database: &DatabaseKey) {
        self.memory.of(database, |of| of.settled = true);
    }

    /// Whether [`World::note_settled`] was called in this process.
    pub(crate) fn is_settled(&self, database: &DatabaseKey) -> bool {
        self.memory.of(database, |of| of.settled)
    }

    /// Notes whether every transaction that could still write when the fence was raised is gone.
    pub(crate) fn note_writers_gone(&self, gone: bool) {
        self.memory.writers_gone.store(gone, SeqCst);
    }

    /// What [`World::note_writers_gone`] was last told, in this process.
    pub(crate) fn are_writers_gone(&self) -> bool {
        self.memory.writers_gone.load(SeqCst)
    }

    /// Notes that the wait for a calm moment is over and the drain policy decides.
    pub(crate) fn note_waited_for_calm(&self) {
        self.memory.waited.store(true, SeqCst);
    }

    /// Whether [`World::note_waited_for_calm`] was called in this process.
    pub(crate) fn waited_for_calm(&self) -> bool {
        self.memory.waited.load(SeqCst)
    }

    /// Notes that the sessions of both servers have done once what the cutover will ask of them.
    pub(crate) fn note_servers_warm(&self) {
        self.memory.warm.store(true, SeqCst);
    }

    /// Whether [`World::note_servers_warm`] was called in this process.
    pub(crate) fn servers_are_warm(&self) -> bool {
        self.memory.warm.load(SeqCst)
    }

    /// Notes that what replication does not carry was brought up to date.
    pub(crate) fn note_fresh(&self) {
        self.memory.fresh.store(true, SeqCst);
    }

    /// Whether [`World::note_fresh`] was called in this process.
    pub(crate) fn is_fresh(&self) -> bool {
        self.memory.fresh.load(SeqCst)
    }

    /// Notes that nothing stands in the way, as seen under the seals.
    pub(crate) fn note_guarded(&self) {
        self.memory.guarded.store(true, SeqCst);
    }

    /// Whether [`World::note_guarded`] was called in this process, and the seals were kept since.
    pub(crate) fn is_guarded(&self) -> bool {
        self.memory.guarded.load(SeqCst)
    }

    /// Notes whether the fence of a side was seen to be as a change right before should have left it.
    pub(crate) fn note_fence_seen(&self, side: Side, as_it_should_be: bool) {
        self.memory.seen(side).store(as_it_should_be, SeqCst);
    }

    /// What [`World::note_fence_seen`] was last told, once.
    pub(crate) fn take_fence_seen(&self, side: Side) -> bool {
        self.memory.seen(side).swap(false, SeqCst)
    }

    /// Notes whether the way back was seen to begin where a change right before should have left it.
    pub(crate) fn note_way_seen(&self, as_it_should_be: bool) {
        self.memory.way_seen.store(as_it_should_be, SeqCst);
    }

    /// What [`World::note_way_seen`] was last told, once.
    pub(crate) fn take_way_seen(&self) -> bool {
        self.memory.way_seen.swap(false, SeqCst)
    }

    /// Keeps the schema of a database as it is.
    pub(crate) fn note_seal(&self, database: &DatabaseKey, seal: Seal) {
        self.memory.of(database, |of| of.seal = Some(Arc::new(seal)));
    }

    /// What keeps the schema of a database as it is.
    pub(crate) fn seal(&self, database: &DatabaseKey) -> Option<Arc<Seal>> {
        self.memory.of(database, |of| of.seal.clone())
    }

    /// Lets schemas be changed again.
    pub(crate) async fn unseal(&self) {
        self.memory.guarded.store(false, SeqCst);
        for seal in self.memory.take_seals() {
            if let Err(error) = seal.lift().await {
                // Its session has ended then, and with it the lock.
                tracing::debug!(%error, "a seal was not lifted in order");
            }
        }
    }

    /// Keeps a fence that only waits for its commit. Its session is kept after that too: a server process that ends
    /// takes time from others in the pause.
    pub(crate) fn stage(&self, side: Side, database: &DatabaseKey, staged: Staged) {
        self.memory.staged().insert((side, database.name.clone()), Arc::new(staged));
    }

    /// The fence that waits for its commit, if there is one.
    pub(crate) fn staged(&self, side: Side, database: &DatabaseKey) -> Option<Arc<Staged>> {
        let staged = self.memory.staged().get(&(side, database.name.clone())).cloned();
        staged.filter(|staged| staged.is_open())
    }

    /// The session on which a staged fence was committed: it has nothing to do any more.
    pub(crate) fn raised_on(&self, side: Side, database: &DatabaseKey) -> Option<Session> {
        let staged = self.memory.staged().get(&(side, database.name.clone())).cloned();
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

    /// Closes all our sessions, one by one: see [`pgteal_postgres::Server::part`]. For the end of a run, when clients are at
    /// work.
    pub async fn part(&self) {
        let staged = std::mem::take(&mut *self.memory.staged());
        for session in staged.into_values() {
            drop(session);
            tokio::time::sleep(PART_PAUSE).await;
        }
        for seal in self.memory.take_seals() {
            drop(seal);
            tokio::time::sleep(PART_PAUSE).await;
        }
        self.blue.server.part(PART_PAUSE).await;
        self.green.server.part(PART_PAUSE).await;
    }
}
