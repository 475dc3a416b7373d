//! A cancel request of a client that has left never hits the next one on its connection.

use std::time::Duration;

use pgteal_wire::cancel::CancelKey;
use pgteal_wire::message::backend::parse_backend_key_data;
use pgteal_wire::message::frontend::{put_query, put_terminate};
use pgteal_wire::startup::{ProtocolVersion, encode_cancel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::lasting;
use super::world::World;
use super::world::raw::{Raw, tags};

const ROUNDS: usize = 500;

async fn connect(world: &World) -> (Raw, CancelKey) {
    let (raw, greeting) = Raw::connect(world, ProtocolVersion::V3_0).await;
    let (_, body) = greeting.iter().find(|(tag, _)| *tag == b'K').unwrap();
    (raw, parse_backend_key_data(body).unwrap())
}

async fn cancel(port: u16, key: CancelKey) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(&encode_cancel(&key)).await.unwrap();
    let _ = stream.read(&mut [0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_cancel_hits_nobody() {
    let world = lasting("").await;
    let port = world.port();
    for round in 0..ROUNDS {
        let (mut former, key) = connect(&world).await;
        let cancels: Vec<_> = (0..3).map(|_| tokio::spawn(cancel(port, key.clone()))).collect();
        // Sooner and later: before the requests are there, while they are passed on, and after.
        let wait = u64::try_from(round % 20).unwrap() * 100;
        tokio::time::sleep(Duration::from_micros(wait)).await;
        former.send(put_terminate).await;
        drop(former);
        let (mut next, fresh) = connect(&world).await;
        assert_ne!(fresh, key);
        next.send(|out| put_query(out, "select pg_sleep(0.003)")).await;
        let answer = next.until(b'Z').await;
        assert_eq!(tags(&answer), "TDCZ", "round {round}: {answer:?}");
        next.send(put_terminate).await;
        for cancel in cancels {
            cancel.await.unwrap();
        }
    }
    let reused: usize = world.command("SHOW STATS").await["upstreams_reused"].parse().unwrap();
    assert!(reused > ROUNDS / 4, "{reused} of {ROUNDS} used again");
}
