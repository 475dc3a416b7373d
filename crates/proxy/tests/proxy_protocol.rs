//! Connections that a load balancer passes on: whose they are, and from where they may come.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pgteal_wire::startup::{ProtocolVersion, StartupMessage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;
use world::{World, value};

const HAPROXY: &str = "/usr/sbin/haproxy";

async fn world(from: &str) -> World {
    World::with("", &format!("[proxy_protocol]\nlisten = [\"127.0.0.1:0\"]\nfrom = [\"{from}\"]\n")).await
}

fn behind(world: &World) -> SocketAddr {
    world.proxy.as_ref().unwrap().addresses()[1]
}

fn header(command: u8, source: [u8; 4], port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    let addresses = [&source[..], &[127, 0, 0, 1], &port, &[0, 0]].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x20 | command, 0x11, 0, 12], &addresses].concat()
}

/// What is answered to these bytes and a startup packet behind them, up to the end or the first 9 bytes.
async fn answer(to: SocketAddr, first: &[u8]) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let startup = StartupMessage::new(ProtocolVersion::V3_0, [("user", "postgres")]);
    let _ = stream.write_all(&[first, &startup.encode()].concat()).await;
    let mut answer = vec![0; 9];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut answer)).await;
    if read.expect("neither answered nor closed").is_err() {
        answer.clear();
    }
    (stream, answer)
}

/// A session is listed a moment after its client was told that it is there.
async fn shown(world: &World, address: &str) {
    pgteal_testkit::wait_until("the session to be listed", Duration::from_secs(5), async || {
        let sessions = world.rows("SHOW SESSIONS").await;
        let listed = sessions.iter().any(|row| row["client_addr"] == address);
        if listed { Ok(()) } else { Err(format!("{sessions:?}")) }
    })
    .await
    .unwrap();
}

const AUTHENTICATED: &[u8] = b"R\0\0\0\x08\0\0\0\0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_is_a_must_and_says_whose_connection_it_is() {
    let world = world("127.0.0.0/8").await;
    let (client, said) = answer(behind(&world), &header(1, [203, 0, 113, 9], 4711)).await;
    assert_eq!(said, AUTHENTICATED);
    shown(&world, "203.0.113.9:4711").await;
    drop(client);
    // A health check of the balancer is its own.
    let (check, said) = answer(behind(&world), &header(0, [203, 0, 113, 9], 4711)).await;
    assert_eq!(said, AUTHENTICATED);
    let own = check.local_addr().unwrap().to_string();
    shown(&world, &own).await;
    let text = b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 5432\r\n";
    for wrong in [&b""[..], text, &header(3, [0; 4], 0)] {
        assert_eq!(answer(behind(&world), wrong).await.1, b"", "{wrong:?} is closed without a word");
    }
    // Where it is not expected it is no startup packet.
    let plain = world.proxy.as_ref().unwrap().addresses()[0];
    assert_ne!(answer(plain, &header(1, [203, 0, 113, 9], 4711)).await.1, AUTHENTICATED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_may_say_whose_connection_it_is() {
    let world = world("10.0.0.0/8").await;
    assert_eq!(answer(behind(&world), &header(1, [203, 0, 113, 9], 4711)).await.1, b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_let_go_soon() {
    let world = world("127.0.0.1").await;
    let mut stream = TcpStream::connect(behind(&world)).await.unwrap();
    stream.write_all(b"\r\n\r\n").await.unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(6), stream.read(&mut [0])).await;
    assert_eq!(closed.expect("still open").unwrap_or(0), 0);
}

struct Balancer(Child);

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// HAProxy itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_in_front_is_understood() {
    let there = std::path::Path::new(HAPROXY).exists();
    assert!(there, "{HAPROXY} is missing: install Debian's package haproxy, or let `cargo xtask test` do it");
    let world = world("127.0.0.1/32").await;
    let port = {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        taken.local_addr().unwrap().port()
    };
    let file = world.dir.path().join("haproxy.cfg");
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         listen pg\n  bind 127.0.0.1:{port}\n  server it {} send-proxy-v2 check inter 200\n",
        behind(&world)
    );
    std::fs::write(&file, text).unwrap();
    let child = Command::new(HAPROXY).arg("-db").arg("-f").arg(&file).stderr(Stdio::null()).spawn();
    let _balancer = Balancer(child.unwrap());
    pgteal_testkit::wait_until("HAProxy to listen", Duration::from_secs(5), async || {
        TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let own = stream.local_addr().unwrap().to_string();
    let mut config = tokio_postgres::Config::new();
    config.user("postgres").dbname("postgres");
    let (client, connection) = config.connect_raw(stream, NoTls).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(value(&client, "select who()").await, "blue");
    assert!(world.rows("SHOW SESSIONS").await.iter().any(|row| row["client_addr"] == own));
}
