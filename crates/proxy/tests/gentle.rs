//! Warming a few at a time: a server process that logs in takes the processor from those whose clients wait.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use pgteal_proxy::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::Client;
use world::{World, console, value};

/// What a server says when a login is complete: ReadyForQuery, idle.
const READY: &[u8] = b"Z\0\0\0\x05I";

/// A way to a server on which logins are counted, and take their time.
struct Doorkeeper {
    port: u16,
    most: Arc<AtomicUsize>,
}

impl Doorkeeper {
    async fn before(port: u16, takes: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let keeper = Self { port: listener.local_addr().unwrap().port(), most: Arc::default() };
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&keeper.most));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                let now = Arc::clone(&now);
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    log_in(&mut near, &mut far, takes).await;
                    now.fetch_sub(1, SeqCst);
                    near.write_all(READY).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        keeper
    }

    /// The most at once since the last call.
    fn most(&self) -> usize {
        self.most.swap(0, SeqCst)
    }
}

/// Everything up to the server's ReadyForQuery, which is kept.
async fn log_in(near: &mut TcpStream, far: &mut TcpStream, takes: Duration) {
    let mut startup = vec![0; 4096];
    let read = near.read(&mut startup).await.unwrap();
    far.write_all(&startup[..read]).await.unwrap();
    let mut greeting = Vec::new();
    while !greeting.ends_with(READY) {
        assert!(far.read_buf(&mut greeting).await.unwrap() > 0);
    }
    tokio::time::sleep(takes).await;
    near.write_all(&greeting[..greeting.len() - READY.len()]).await.unwrap();
}

async fn behind_a_doorkeeper(takes: Duration) -> (World, Doorkeeper) {
    let mut world = World::new("").await;
    drop(world.proxy.take());
    let keeper = Doorkeeper::before(world.green.port(), takes).await;
    let mut config = world::config(world.dir.path(), &world.blue, &world.green, "");
    config.green.as_mut().unwrap().port = keeper.port;
    let proxy = Proxy::start(config).await.unwrap();
    world.console = console(proxy.socket().unwrap()).await;
    world.proxy = Some(proxy);
    (world, keeper)
}

async fn clients(world: &World, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(world.client().await);
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_after_the_other_while_there_is_time_and_more_when_there_is_none() {
    let (world, keeper) = behind_a_doorkeeper(Duration::from_millis(40)).await;
    let mut clients = clients(&world, 16).await;
    // Somebody inside a long transaction has no turn that others would wait for.
    clients[0].batch_execute("begin").await.unwrap();
    let began = Instant::now();
    let warm = world.command("WARM green EPOCH 1 LIMIT 30000").await;
    assert_eq!((warm["sessions"].as_str(), warm["warm"].as_str()), ("16", "15"), "{warm:?}");
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}", began.elapsed());
    // On a busy machine somebody may need so long to begin that others do not wait for him.
    let most = keeper.most();
    assert!((1..=3).contains(&most), "{most} at once");
    clients[0].batch_execute("commit").await.unwrap();
    // Who comes later finds no queue.
    clients.push(world.client().await);
    let warm = world.command("WARM green EPOCH 1 LIMIT 30000").await;
    assert_eq!((warm["sessions"].as_str(), warm["warm"].as_str()), ("17", "17"), "{warm:?}");
    keeper.most();
    world.command("COOL EPOCH 1").await;
    // A quarter of this limit is not enough for one after the other.
    let warm = world.command("WARM green EPOCH 1 LIMIT 2000").await;
    assert_eq!((warm["sessions"].as_str(), warm["warm"].as_str()), ("17", "17"), "{warm:?}");
    let most = keeper.most();
    assert!((2..=8).contains(&most), "{most} at once");
    assert_eq!(value(&clients[0], "select who()").await, "blue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_turns_while_clients_are_held() {
    let (world, keeper) = behind_a_doorkeeper(Duration::from_millis(100)).await;
    let clients = clients(&world, 8).await;
    assert_eq!(world.command("WARM green EPOCH 1 LIMIT 2000").await["warm"], "8");
    world.command("HOLD EPOCH 1 LIMIT 20000").await;
    keeper.most();
    let lost = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                where backend_type = 'client backend' and pid <> pg_backend_pid()";
    assert_eq!(world.green.sql(lost).await.unwrap(), "8");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let settled = world.command("SETTLE EPOCH 1 LIMIT 5000").await;
    assert_eq!((settled["warm"].as_str(), settled["stale"].as_str()), ("8", "0"), "{settled:?}");
    assert!(keeper.most() > 4, "in turns");
    // A WARM that comes in a hold is in a hurry as well.
    world.command("COOL EPOCH 1").await;
    assert_eq!(world.command("WARM green EPOCH 1 LIMIT 30000").await["warm"], "8");
    assert!(keeper.most() > 4, "in turns");
    assert_eq!(world.command("REPOINT green EPOCH 1").await["moved"], "8");
    world.command("RELEASE EPOCH 1").await;
    for client in &clients {
        assert_eq!(value(client, "select who()").await, "green");
    }
}
