//! The threads that sessions live on: as many as asked for, all of them used, gone with their proxy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::time::{Duration, Instant};

use world::{World, value};

/// The processor time, in ticks, of each thread of ours that sessions live on.
fn shards() -> Vec<u64> {
    let mut all = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        // One that ends meanwhile has no file.
        let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
        let (name, rest) = stat.split_once('(').unwrap().1.rsplit_once(')').unwrap();
        if name.starts_with("shard-") {
            let ticks = |n: usize| rest.split_whitespace().nth(n).unwrap().parse::<u64>().unwrap();
            all.push(ticks(11) + ticks(12));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_spread_and_end_with_their_threads() {
    assert!(shards().is_empty());
    let mut world = World::new("").await;
    // A thread has its name when it runs.
    let named = async || if shards().len() == 2 { Ok(Some(())) } else { Err(shards().len()) };
    pgteal_testkit::wait_until("two threads to run", Duration::from_secs(10), named).await.unwrap();
    let clients = [world.client().await, world.client().await, world.client().await, world.client().await];
    let before = Instant::now();
    while shards().iter().any(|ticks| *ticks < 2) {
        assert!(before.elapsed() < Duration::from_secs(30), "a thread has nothing to do: {:?}", shards());
        let all = clients.iter().map(|client| client.batch_execute("select 1"));
        futures::future::try_join_all(all).await.unwrap();
    }

    // Dropped: at once, whatever clients do.
    clients[0].batch_execute("begin").await.unwrap();
    drop(world.proxy.take());
    let before = Instant::now();
    while !shards().is_empty() {
        assert!(before.elapsed() < Duration::from_secs(5), "threads outlive their proxy");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(clients[0].batch_execute("commit").await.is_err());

    // Told to end: they are gone when it has.
    let config = world::config(world.dir.path(), &world.blue, &world.green, "");
    world.proxy = Some(pgteal_proxy::Proxy::start(config).await.unwrap());
    let client = world.client().await;
    assert_eq!(value(&client, "select who()").await, "blue");
    world.proxy.take().unwrap().shutdown().await;
    assert!(shards().is_empty());
}
