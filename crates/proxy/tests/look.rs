//! What SHOW SESSIONS tells of a session, before anything is opened for it anywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use tokio_postgres::Client;
use world::{World, value};

async fn shown(world: &World) -> Vec<(String, String, String)> {
    let rows = world.rows("SHOW SESSIONS").await;
    rows.into_iter()
        .map(|row| (row["application_name"].clone(), row["class"].clone(), row["reason"].clone()))
        .collect()
}

async fn says(client: &Client, sql: &str) {
    for part in sql.split("; ") {
        client.simple_query(part).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_tells_who_can_move_and_opens_nothing() {
    let world = World::new(
        "create function hides() returns void language plpgsql as $$begin create temp table h (); end$$;",
    )
    .await;
    let mut clients = Vec::new();
    for (name, sql) in [
        ("plain", "select 1"),
        ("billing", "create temp table t ()"),
        ("hidden", "select hides()"),
        ("cursor", "begin; declare c cursor with hold for select 1; commit"),
        ("open", "begin; select 1"),
        ("locks", "select pg_advisory_lock(1); listen room"),
        ("gone", "create temp table gone (); discard all; set application_name = 'gone'"),
    ] {
        let client = world.client().await;
        client.simple_query(&format!("set application_name = '{name}'")).await.unwrap();
        says(&client, sql).await;
        clients.push(client);
    }
    let unnamed = clients[0].prepare("select who()").await.unwrap();
    assert!(shown(&world).await.iter().all(|(_, class, _)| class != "pinned"), "nobody looked yet");
    let look = world.command("LOOK").await;
    assert_eq!((look["sessions"].as_str(), look["looked"].as_str()), ("7", "6"));
    let row = |name: &str, class: &str, reason: &str| (name.to_owned(), class.to_owned(), reason.to_owned());
    let expected = [
        row("plain", "movable", ""),
        row("billing", "pinned", "a temporary table (t)"),
        row("hidden", "pinned", "a temporary table (h)"),
        row("cursor", "pinned", "a cursor WITH HOLD (c)"),
        row("open", "draining", "an open transaction"),
        row("locks", "movable", ""),
        row("gone", "movable", ""),
    ];
    assert_eq!(shown(&world).await, expected);
    let connected = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
    assert_eq!(world.green.sql(connected).await.unwrap(), "0", "something was opened over there");
    // Seen again when something ran since, and how long it is so.
    tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    says(&clients[1], "drop table t").await;
    says(&clients[0], "create temp table late ()").await;
    says(&clients[4], "commit").await;
    assert_eq!(world.command("LOOK LIMIT 5000").await["looked"], "7");
    let rows = world.rows("SHOW SESSIONS").await;
    let classes: Vec<_> = rows.iter().map(|row| row["class"].as_str()).collect();
    assert_eq!(classes, ["pinned", "movable", "pinned", "pinned", "movable", "movable", "movable"]);
    assert!(rows[0]["since_ms"].parse::<u64>().unwrap() < 60, "{rows:?}");
    assert!(rows[2]["since_ms"].parse::<u64>().unwrap() >= 60, "{rows:?}");
    // It is no hindrance to what follows.
    assert_eq!(clients[0].query_one(&unnamed, &[]).await.unwrap().get::<_, String>(0), "blue");
    assert_eq!(world.switch("green", 1).await["moved"], "4");
    assert_eq!(value(&clients[5], "select pg_advisory_unlock(1)").await, "t");
    world.command("HOLD EPOCH 1 LIMIT 5000").await;
    assert_eq!(world.refused("LOOK").await.1, "clients are held");
}
