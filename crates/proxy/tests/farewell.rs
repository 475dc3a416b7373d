//! The connections that sessions leave behind at a repoint: when they are closed, and for whom they make room.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::time::{Duration, Instant};

use pgteal_testkit::{Cluster, wait_until};
use tokio_postgres::Client;
use world::{World, value};

/// Sessions of clients that a server has.
async fn sessions(server: &Cluster) -> usize {
    let sql = "select count(*) from pg_stat_activity where backend_type = 'client backend' and application_name = 'app'";
    server.sql(sql).await.unwrap().parse().unwrap()
}

async fn clients(world: &World, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let client = world.client().await;
        client.batch_execute("set application_name = 'app'").await.unwrap();
        clients.push(client);
    }
    clients
}

async fn left_behind(world: &World) -> usize {
    world.command("SHOW STATE").await["left_behind"].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_process_has_to_exit_in_the_pause() {
    let world = World::new("").await;
    let clients = clients(&world, 5).await;
    clients[4].batch_execute("create temp table t ()").await.unwrap();
    world.command("WARM green EPOCH 1").await;
    world.command("HOLD EPOCH 1 LIMIT 20000").await;
    world.command("REPOINT green EPOCH 1").await;
    // The pause may be long: it is the release that counts.
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert_eq!((left_behind(&world).await, sessions(&world.blue).await), (5, 5));
    world.command("RELEASE EPOCH 1").await;
    let released = Instant::now();
    for client in &clients[..4] {
        assert_eq!(value(client, "select who()").await, "green");
    }
    let there = sessions(&world.blue).await;
    assert!(
        there == 5 || released.elapsed() > Duration::from_millis(900),
        "{there} of those who left are still there"
    );
    wait_until("the old connections to be closed", Duration::from_secs(5), async || {
        let (left, there) = (left_behind(&world).await, sessions(&world.blue).await);
        if (left, there) == (0, 0) { Ok(()) } else { Err(format!("{left} left behind, {there} on blue")) }
    })
    .await
    .unwrap();
    assert!(released.elapsed() > Duration::from_millis(900), "{:?}", released.elapsed());
    for client in &clients[..4] {
        assert_eq!(value(client, "select who()").await, "green");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_back_at_once_finds_room() {
    let world = World::new("").await;
    let clients = clients(&world, 5).await;
    world.switch("green", 1).await;
    assert_eq!(sessions(&world.blue).await, 5);
    // Those left behind go before others come: their places may be all there are.
    let warm = world.command("WARM blue EPOCH 2").await;
    assert_eq!((warm["warm"].as_str(), warm["failed"].as_str()), ("5", "0"), "{warm:?}");
    assert_eq!(sessions(&world.blue).await, 5);
    assert_eq!(left_behind(&world).await, 0);
    world.switch("blue", 2).await;
    for client in &clients {
        assert_eq!(value(client, "select who()").await, "blue");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_may_end_them_itself() {
    let world = World::new("").await;
    let clients = clients(&world, 3).await;
    world.switch("green", 1).await;
    world
        .blue
        .sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'app'")
        .await
        .unwrap();
    wait_until("them to be gone", Duration::from_secs(2), async || match sessions(&world.blue).await {
        0 => Ok(()),
        there => Err(format!("{there} on blue")),
    })
    .await
    .unwrap();
    for client in &clients {
        assert_eq!(value(client, "select who()").await, "green");
    }
    assert_eq!(world.command("SHOW STATS").await["upstream_lost"], "0");
    world.switch("blue", 2).await;
    for client in &clients {
        assert_eq!(value(client, "select who()").await, "blue");
    }
}
