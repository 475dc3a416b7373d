//! The one thread that writes: takes requests in order, answers each.
//! Refuses to know what is written.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use jiff::Timestamp;
use pgteal_saga::{DeploymentId, Event, EventBody, JournalError, Lease, RunId, RunSummary};
use tokio::sync::{mpsc, oneshot};

use super::lock::Lock;
use super::schema;
use super::store::{Batch, Store};

/// How many requests may wait.
const QUEUE: usize = 64;
/// After how many appends the write-ahead log is emptied even if the run is not over; it takes some 15 kB an append.
const MAX_APPENDS: u32 = 1_000;

type Answer<T> = oneshot::Sender<Result<T, JournalError>>;

/// What the thread may be asked.
pub(super) enum Ask {
    Append(Batch, Answer<u64>),
    Load(RunId, Answer<Vec<Event>>),
    Runs(Answer<Vec<RunSummary>>),
    Acquire {
        deployment: DeploymentId,
        holder: String,
        at: Timestamp,
        answer: Answer<Lease>,
    },
    Lease(DeploymentId, Answer<Option<Lease>>),
    #[cfg(test)]
    LimitPages(i64, Answer<()>),
}

/// The thread's other end.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    asks: Option<mpsc::Sender<Ask>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Takes the lock, opens the file and starts the thread. Blocks while the file is opened.
    pub(super) fn start(path: &Path) -> Result<Self, JournalError> {
        let lock = Lock::take(path)?;
        let store = Store::new(path, schema::open(path)?);
        let (sender, receiver) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || serve(store, receiver, lock))
            .map_err(|error| JournalError::Io {
                place: path.display().to_string(),
                what: format!("no thread for it: {error}"),
            })?;
        Ok(Self { path: path.to_owned(), asks: Some(sender), thread: Some(thread) })
    }

    /// Asks and waits for the answer. A request that was taken is answered even if nobody waits for it any more.
    pub(super) async fn ask<T>(&self, ask: impl FnOnce(Answer<T>) -> Ask) -> Result<T, JournalError> {
        let (answer, answered) = oneshot::channel();
        if let Some(asks) = &self.asks
            && asks.send(ask(answer)).await.is_ok()
            && let Ok(outcome) = answered.await
        {
            return outcome;
        }
        Err(JournalError::Io { place: self.path.display().to_string(), what: "its thread has ended".into() })
    }
}

impl Drop for Writer {
    /// Waits until the file is closed and the lock is free, so that it can be opened again at once.
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(journal = %self.path.display(), "the journal's thread panicked");
        }
    }
}

/// `lock` goes last: when the file is closed.
fn serve(mut store: Store, mut asks: mpsc::Receiver<Ask>, lock: Lock) {
    checkpoint(&store);
    let mut appends = 0;
    while let Some(ask) = asks.blocking_recv() {
        let may_pause = is_end(&ask);
        appends += u32::from(matches!(ask, Ask::Append(..)));
        answer(&mut store, ask);
        if may_pause || appends >= MAX_APPENDS {
            checkpoint(&store);
            appends = 0;
        }
    }
    drop(store);
    drop(lock);
}

/// Whether nobody waits for what comes next: then there is time for a checkpoint.
fn is_end(ask: &Ask) -> bool {
    let over = |event: &Event| matches!(event.body, EventBody::Finished { .. });
    matches!(ask, Ask::Append(batch, _) if batch.events.last().is_some_and(over))
}

fn checkpoint(store: &Store) {
    // What is not moved now is moved another time; it is durable where it is.
    if let Err(error) = store.checkpoint() {
        tracing::debug!(%error, "no checkpoint of the journal");
    }
}

fn answer(store: &mut Store, ask: Ask) {
    // Whoever asked may have gone: what was asked for is done all the same.
    match ask {
        Ask::Append(batch, answer) => drop(answer.send(store.append(&batch))),
        Ask::Load(run, answer) => drop(answer.send(store.load(&run))),
        Ask::Runs(answer) => drop(answer.send(store.runs())),
        Ask::Acquire { deployment, holder, at, answer } => {
            drop(answer.send(store.acquire(&deployment, &holder, at)));
        }
        Ask::Lease(deployment, answer) => drop(answer.send(store.lease(&deployment))),
        #[cfg(test)]
        Ask::LimitPages(more, answer) => drop(answer.send(store.limit_pages(more))),
    }
}
