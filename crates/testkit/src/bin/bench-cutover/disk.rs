//! What the disk does by itself: a page written and flushed every few milliseconds, beside the load. Owns the file and its
//! task; refuses to know what a slow flush means for whom.
//!
//! A server that flushes its WAL keeps all its clients waiting, so a disk that stalls is a stall of theirs in which no
//! contender has a part. With this figure beside it such a round explains itself.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinHandle;

use crate::arena::Arena;
use crate::load::now_us;

/// Between two flushes: often enough to meet every stall worth a word, seldom enough to cost the servers nothing.
const PACE: Duration = Duration::from_millis(20);
const PAGE: [u8; 8192] = [0x5a; 8192];

/// The task that writes and flushes.
#[derive(Debug)]
pub(crate) struct Disk {
    ended: Arc<AtomicBool>,
    task: JoinHandle<Result<Flushes>>,
}

/// When each flush began, and how long it took (microseconds).
#[derive(Debug, Default)]
pub(crate) struct Flushes(Vec<(u64, u64)>);

impl Disk {
    /// Has the kernel write what it still keeps in memory (building the servers leaves much), then begins.
    pub(crate) fn watch(arena: &Arena) -> Result<Disk> {
        rustix::fs::sync();
        let file = Arc::new(File::create(arena.file("flushes"))?);
        flush(&file)?;
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let task = tokio::spawn(async move {
            let mut flushes = Flushes::default();
            while !told.load(Ordering::Relaxed) {
                let (at, file) = (now_us()?, Arc::clone(&file));
                let took = tokio::task::spawn_blocking(move || flush(&file)).await??;
                flushes.0.push((at, u64::try_from(took.as_micros())?));
                tokio::time::sleep(PACE).await;
            }
            Ok(flushes)
        });
        Ok(Disk { ended, task })
    }

    /// Ends the task.
    pub(crate) async fn finish(self) -> Result<Flushes> {
        self.ended.store(true, Ordering::Relaxed);
        self.task.await?.context("flush a page")
    }
}

/// The same page each time, as a server's WAL is written into a file that is there.
fn flush(file: &File) -> Result<Duration> {
    let began = Instant::now();
    file.write_all_at(&PAGE, 0)?;
    file.sync_data()?;
    Ok(began.elapsed())
}

impl Flushes {
    /// The longest of those under way between two instants, in milliseconds.
    pub(crate) fn longest_ms(&self, from: u64, to: u64) -> f64 {
        let under_way = self.0.iter().filter(|(at, took)| at + took >= from && *at <= to);
        under_way.map(|(_, took)| *took).max().unwrap_or(0) as f64 / 1e3
    }
}
