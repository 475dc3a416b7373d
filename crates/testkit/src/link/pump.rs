//! One direction of one connection: reads, keeps bytes for as long as the weather says, writes. Refuses to know cuts.

use super::Weather;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// With [`ON_THE_WAY`] the most that one direction holds: 1 MiB.
const CHUNK: usize = 16 * 1024;
const ON_THE_WAY: usize = 64;

/// Bytes and when they may arrive.
type Parcel = (Instant, Vec<u8>);

/// Forwards until the reader's end closes, then closes the writer's.
///
/// # Errors
/// When either end breaks, or the link is dropped while bytes are held back.
pub(super) async fn pump(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    weather: watch::Receiver<Weather>,
    delivered: &AtomicU64,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(ON_THE_WAY);
    tokio::try_join!(read(from, sender, weather.clone()), write(to, receiver, weather, delivered))?;
    Ok(())
}

async fn read(
    mut from: ReadHalf<'_>,
    parcels: mpsc::Sender<Parcel>,
    weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    loop {
        let mut chunk = vec![0; CHUNK];
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return Ok(());
        }
        chunk.truncate(length);
        let due = Instant::now() + weather.borrow().delay;
        if parcels.send((due, chunk)).await.is_err() {
            return Ok(());
        }
    }
}

async fn write(
    mut to: WriteHalf<'_>,
    mut parcels: mpsc::Receiver<Parcel>,
    mut weather: watch::Receiver<Weather>,
    delivered: &AtomicU64,
) -> io::Result<()> {
    while let Some((due, chunk)) = parcels.recv().await {
        tokio::time::sleep_until(due).await;
        let rate = weather.wait_for(|now| !now.frozen).await.map_err(io::Error::other)?.bytes_per_second;
        if let Some(rate) = rate {
            tokio::time::sleep(Duration::from_secs_f64(chunk.len() as f64 / rate as f64)).await;
        }
        to.write_all(&chunk).await?;
        delivered.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
    to.shutdown().await
}
