//! How long a connection lies idle, and what happens to one that has died meanwhile.

use std::time::Duration;

use pgteal_testkit::{Cluster, wait_until};

use super::world::{World, value};
use super::{LASTING, idle, lasting, named, nobody, pid};

/// Connections of clients called so that a server has.
async fn there(server: &Cluster, name: &str) -> usize {
    let sql = format!(
        "select count(*) from pg_stat_activity where backend_type = 'client backend' and application_name = '{name}'"
    );
    server.sql(&sql).await.unwrap().trim().parse().unwrap()
}

async fn gone(server: &Cluster, name: &str) {
    wait_until("the connections to be closed", Duration::from_secs(10), async || {
        let count = there(server, name).await;
        if count == 0 { Ok(()) } else { Err(format!("{count} are there")) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_has_died_is_given_to_nobody() {
    let world = lasting("").await;
    let before = {
        let client = named(&world, "app").await;
        pid(&client).await
    };
    idle(&world, 1).await;
    world.blue.sql(&format!("select pg_terminate_backend({before}, 10000)")).await.unwrap();
    let client = named(&world, "app").await;
    let second = pid(&client).await;
    assert_ne!(second, before);
    drop(client);
    idle(&world, 1).await;
    // Without a word to anybody.
    assert!(std::process::Command::new("kill").args(["-9", &second]).status().unwrap().success());
    wait_until("the server to be there again", Duration::from_secs(20), async || {
        world.blue.sql("select 1").await.map(drop).map_err(|error| error.to_string())
    })
    .await
    .unwrap();
    let client = named(&world, "app").await;
    assert_ne!(pid(&client).await, second);
    drop(client);
    idle(&world, 1).await;
    world.blue.restart().await.unwrap();
    let client = named(&world, "app").await;
    assert_eq!(value(&client, "select who()").await, "blue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_was_configured_to_meanwhile_is_in_force() {
    let world = lasting("").await;
    let before = pid(&named(&world, "app").await).await;
    idle(&world, 1).await;
    world.blue.sql("alter system set timezone = 'Asia/Tokyo'").await.unwrap();
    world.blue.sql("select pg_reload_conf()").await.unwrap();
    wait_until("the new setting to be in force", Duration::from_secs(10), async || {
        let zone = world.blue.sql("show timezone").await.unwrap();
        if zone.trim() == "Asia/Tokyo" { Ok(()) } else { Err(zone) }
    })
    .await
    .unwrap();
    let client = named(&world, "app").await;
    assert_eq!(value(&client, "show timezone").await, "Asia/Tokyo");
    assert_eq!(pid(&client).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_lies_for_longer_than_it_may() {
    let world = World::with("", "[pool]\nserver_idle_timeout = 1.5\n").await;
    drop(named(&world, "app").await);
    idle(&world, 1).await;
    gone(&world.blue, "app").await;
    idle(&world, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reuse_can_be_turned_off_and_has_its_bounds() {
    for (pool, kept) in [
        ("server_idle_timeout = 0", 0),
        ("server_lifetime = 0", 0),
        ("default_pool_size = 0", 0),
        ("max_idle_connections = 0", 0),
        // Two threads, each with its half.
        ("default_pool_size = 2", 2),
        ("max_idle_connections = 3", 3),
    ] {
        let lasting = if pool.starts_with("server_idle_timeout") { "" } else { LASTING };
        let world = World::with("", &format!("[pool]\n{pool}\n{lasting}\n")).await;
        let mut clients = Vec::new();
        for _ in 0..6 {
            clients.push(named(&world, "app").await);
        }
        drop(clients);
        nobody(&world).await;
        idle(&world, kept).await;
        wait_until("the others to be closed", Duration::from_secs(10), async || {
            let count = there(&world.blue, "app").await;
            if count == kept { Ok(()) } else { Err(format!("{count}, with {pool}")) }
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_no_place_gets_that_of_one_that_nobody_uses() {
    let world = lasting("create role app login connection limit 2;").await;
    let app = async |name: &str| {
        let mut config = world.client_config();
        super::connect(config.user("app").application_name(name)).await
    };
    for name in ["one", "two"] {
        drop(app(name).await);
    }
    idle(&world, 2).await;
    let (third, fourth) = (app("three").await, app("four").await);
    assert_eq!(value(&third, "select who()").await, "blue");
    assert_eq!(value(&fourth, "select who()").await, "blue");
    let mut config = world.client_config();
    let refused = config.user("app").connect(tokio_postgres::NoTls).await.err().unwrap();
    assert_eq!(refused.code().unwrap().code(), "53300");
}

/// Each has a startup packet of its own, so that none may have another's connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_when_only_nobodys_have_the_places_gets_one() {
    let world = lasting("create role app login connection limit 8;").await;
    for round in 0..4 {
        let app = async |n: usize| {
            let mut config = world.client_config();
            super::connect(config.user("app").application_name(format!("{round} {n}"))).await
        };
        let all = futures::future::join_all((0..8).map(app)).await;
        for client in &all {
            assert_eq!(value(client, "select who()").await, "blue");
        }
        drop(all);
        idle(&world, 8).await;
    }
}

/// PostgreSQL waits five seconds for others to go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_everybody_has_left_can_be_dropped() {
    let world = World::new("").await;
    world.blue.sql("create database shop").await.unwrap();
    let mut config = world.client_config();
    drop(super::connect(config.dbname("shop")).await);
    nobody(&world).await;
    world.client().await.simple_query("drop database shop").await.unwrap();
}

/// What clients had when certificates were read again comes back to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_opened_before_a_reload_is_not_used_after_it() {
    let world = lasting("").await;
    let client = named(&world, "app").await;
    world.command("RELOAD").await;
    drop(client);
    nobody(&world).await;
    idle(&world, 0).await;
}
