//! Owns the threads on which connections live: each has a runtime of its own, and a session lives and dies on one, so
//! that to wake it takes no lock and no other processor. Refuses to know what happens on a connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use crate::login::{self, Peer};
use crate::quota::Claim;
use crate::shared::Shared;
use crate::stream::Stream;

/// Threads of one runtime that may block at once, for what has to: host names, files.
const BLOCKING: usize = 32;
/// How often a shard that ends looks at its other tasks: enough for a farewell that has only to be written.
const LAST_TURNS: usize = 16;

/// A connection that was accepted and is on no runtime.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Accepted {
    fn on_this_runtime(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(stream) => tokio::net::TcpStream::from_std(stream).map(Stream::Tcp),
            Self::Unix(stream) => tokio::net::UnixStream::from_std(stream).map(Stream::Unix),
        }
    }
}

/// A connection's place among those of its listener and of its shard, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _of_listener: OwnedSemaphorePermit,
    /// Its place among the clients, once it is one.
    pub(crate) claim: Option<Claim>,
    living: Arc<AtomicUsize>,
    thread: usize,
}

impl Place {
    /// The number of the thread that it is on.
    pub(crate) const fn thread(&self) -> usize {
        self.thread
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.living.fetch_sub(1, Relaxed);
    }
}

#[derive(Debug)]
struct Arrival {
    connection: Accepted,
    peer: Peer,
    place: Place,
}

#[derive(Debug)]
struct Shard {
    arrivals: mpsc::Sender<Arrival>,
    living: Arc<AtomicUsize>,
}

/// The way in: whom listeners hand their connections to.
#[derive(Debug)]
pub(crate) struct Entrance(Vec<Shard>);

impl Entrance {
    /// Hands a connection to the shard that has the fewest.
    pub(crate) fn admit(&self, connection: Accepted, peer: Peer, of_listener: OwnedSemaphorePermit) {
        let shards = self.0.iter().enumerate();
        let Some((thread, shard)) = shards.min_by_key(|(_, shard)| shard.living.load(Relaxed)) else {
            return;
        };
        shard.living.fetch_add(1, Relaxed);
        let living = Arc::clone(&shard.living);
        let place = Place { _of_listener: of_listener, claim: None, living, thread };
        // Refused only while everything ends.
        let _ = shard.arrivals.try_send(Arrival { connection, peer, place });
    }

    /// Connections that are not over, in all.
    pub(crate) fn living(&self) -> usize {
        self.0.iter().map(|shard| shard.living.load(Relaxed)).sum()
    }
}

/// The threads. Dropping this ends all of them, and what lives on them, at once: when it is dropped they are gone.
#[derive(Debug)]
pub(crate) struct Shards {
    alive: Option<watch::Sender<()>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Shards {
    /// Starts so many threads. `room`: the places that listeners have in all, so that each arrival finds room.
    ///
    /// # Errors
    /// The system's, when a thread or a runtime is not to be had.
    pub(crate) fn start(
        count: usize,
        room: usize,
        shared: &Arc<Shared>,
    ) -> io::Result<(Self, Arc<Entrance>)> {
        let (alive, told) = watch::channel(());
        let mut shards = Self { alive: Some(alive), threads: Vec::new() };
        let mut entrance = Vec::new();
        for number in 0..count {
            let runtime =
                Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING).build()?;
            let (arrivals, arriving) = mpsc::channel(room);
            let (shared, alive) = (Arc::clone(shared), told.clone());
            let thread = std::thread::Builder::new()
                .name(format!("shard-{number}"))
                .spawn(move || live(runtime, shared, arriving, alive))?;
            shards.threads.push(thread);
            entrance.push(Shard { arrivals, living: Arc::default() });
        }
        Ok((shards, Arc::new(Entrance(entrance))))
    }

    /// Ends the threads, and answers when they are gone.
    pub(crate) async fn end(self) {
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.alive = None;
        // Moments: no thread waits for what blocks.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// One thread's life.
fn live(
    runtime: Runtime,
    shared: Arc<Shared>,
    mut arriving: mpsc::Receiver<Arrival>,
    mut alive: watch::Receiver<()>,
) {
    runtime.block_on(async {
        loop {
            tokio::select! {
                biased;
                _ = alive.changed() => break,
                Some(arrival) = arriving.recv() => {
                    let Arrival { connection, peer, place } = arrival;
                    match connection.on_this_runtime() {
                        Ok(stream) => {
                            let shared = Arc::clone(&shared);
                            tokio::spawn(login::serve(shared, stream, peer, place));
                        }
                        Err(error) => tracing::warn!(%error, "a connection cannot be served"),
                    }
                }
            }
        }
        for _ in 0..LAST_TURNS {
            tokio::task::yield_now().await;
        }
    });
    // Drops every task; a thread that blocks is not waited for.
    runtime.shutdown_background();
}
