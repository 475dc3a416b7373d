//! Links that get bad: what arrives, what does not, and what the ends are told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pgteal_testkit::{Cut, Link, wait_until};
use std::io::ErrorKind;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(150);
const BOUND: Duration = Duration::from_secs(10);

/// A link to a server that sends everything back.
async fn to_echo() -> Link {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    Link::to(target).await.unwrap()
}

async fn open(link: &Link) -> TcpStream {
    TcpStream::connect(("127.0.0.1", link.port())).await.unwrap()
}

async fn echo(stream: &mut TcpStream, word: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(word).await?;
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).await?;
    Ok(back)
}

#[tokio::test]
async fn a_good_link_carries_and_counts() {
    let link = to_echo().await;
    let mut stream = open(&link).await;
    let big = vec![7; 3_000_000];
    let (mut from, mut to) = stream.split();
    let mut back = Vec::new();
    let send = async {
        to.write_all(&big).await?;
        to.shutdown().await
    };
    timeout(BOUND, async { tokio::try_join!(send, from.read_to_end(&mut back)) }).await.unwrap().unwrap();
    assert_eq!(back, big, "all of it, and the half-close went through");
    let closed = wait_until("the connection to be over", BOUND, async || match link.counters() {
        now if now.open == 0 => Ok(now),
        now => Err(format!("{now:?}")),
    });
    let counters = closed.await.unwrap();
    assert_eq!(
        (counters.accepted, counters.bytes_to_target, counters.bytes_to_client),
        (1, 3_000_000, 3_000_000)
    );
}

#[tokio::test]
async fn delay_and_rate_are_felt_and_healed() {
    let link = to_echo().await;
    let mut stream = open(&link).await;
    let took = async |stream: &mut TcpStream, size| {
        let start = Instant::now();
        echo(stream, &vec![1; size]).await.unwrap();
        start.elapsed()
    };
    took(&mut stream, 10).await;
    link.delay(Duration::from_millis(100));
    let slow = took(&mut stream, 10).await;
    assert!(slow >= Duration::from_millis(200), "there and back took {slow:?}");
    link.heal();
    link.rate(Some(10_000));
    let narrow = took(&mut stream, 2_000).await;
    assert!(narrow >= Duration::from_millis(380), "2 kB there and back at 10 kB/s took {narrow:?}");
    link.heal();
    let good = took(&mut stream, 2_000).await;
    assert!(good < Duration::from_millis(190), "healed, it took {good:?}");
}

#[tokio::test]
async fn a_frozen_link_loses_nothing() {
    let link = to_echo().await;
    let mut stream = open(&link).await;
    echo(&mut stream, b"before").await.unwrap();
    link.freeze();
    stream.write_all(b"during").await.unwrap();
    let mut back = [0; 6];
    assert!(timeout(SHORT, stream.read_exact(&mut back)).await.is_err(), "a frozen link let bytes through");
    let mut late = open(&link).await;
    link.heal();
    timeout(BOUND, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"during");
    assert_eq!(timeout(BOUND, echo(&mut late, b"late")).await.unwrap().unwrap(), b"late");
}

#[tokio::test]
async fn a_reset_tells_both_and_refuses_new_ones() {
    let link = to_echo().await;
    let mut stream = open(&link).await;
    echo(&mut stream, b"before").await.unwrap();
    link.cut(Cut::Reset);
    let error = timeout(BOUND, stream.read(&mut [0; 1])).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let mut refused = open(&link).await;
    assert!(timeout(BOUND, echo(&mut refused, b"x")).await.unwrap().is_err());
    link.heal();
    let mut good = open(&link).await;
    assert_eq!(timeout(BOUND, echo(&mut good, b"after")).await.unwrap().unwrap(), b"after");
}

#[tokio::test]
async fn a_silent_cut_tells_nobody() {
    let link = to_echo().await;
    let mut stream = open(&link).await;
    echo(&mut stream, b"before").await.unwrap();
    link.cut(Cut::Silent);
    // Healed at once: the connections of that moment stay deaf all the same.
    link.heal();
    stream.write_all(b"lost").await.unwrap();
    assert!(timeout(SHORT, stream.read(&mut [0; 1])).await.is_err(), "somebody was told");
    let mut good = open(&link).await;
    assert_eq!(timeout(BOUND, echo(&mut good, b"after")).await.unwrap().unwrap(), b"after");
    drop(link);
    assert!(timeout(BOUND, stream.read(&mut [0; 1])).await.is_ok(), "a dropped link ends its connections");
}
