//! Clients whose own settings would end, block or mislead a question on their connection: they are looked at, and move.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::time::Duration;

use tokio_postgres::{Client, NoTls};
use world::{World, value};

/// What the client sets, and what shows afterwards that it was carried.
const ODD: [(&str, &str, &str); 7] = [
    ("set statement_timeout = 1", "statement_timeout", "1ms"),
    ("set statement_timeout = '1min'; set lock_timeout = 1", "lock_timeout", "1ms"),
    (
        "set default_transaction_isolation = 'serializable'; set default_transaction_deferrable = on; \
         set default_transaction_read_only = on",
        "default_transaction_deferrable",
        "on",
    ),
    ("set search_path = odd, pg_catalog", "search_path", "odd, pg_catalog"),
    ("set standard_conforming_strings = off", "standard_conforming_strings", "off"),
    ("set role powerless", "role", "powerless"),
    ("set client_encoding = 'LATIN1'", "client_encoding", "LATIN1"),
];

/// What a hurried client sees first in everything that is not qualified.
const SCHEMA: &str = "create role powerless; create schema odd; grant usage on schema odd to public; \
    create function odd.never(text, text) returns bool language plpgsql as \
    $$begin raise exception 'asked the odd one'; end$$; \
    create operator odd.= (leftarg = text, rightarg = text, function = odd.never); \
    create operator odd.<> (leftarg = text, rightarg = text, function = odd.never); \
    create function odd.current_setting(text) returns text language sql as $$select 'odd'$$; \
    create table writes (id int);";

/// `SHOW` runs no plan: nothing of it takes a millisecond.
async fn shown(client: &Client, name: &str) -> String {
    value(client, &format!("show {name}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_clients_are_looked_at_and_move_both_ways() {
    let world = World::new(SCHEMA).await;
    let mut clients = Vec::new();
    for (sql, ..) in ODD.into_iter().chain([("set statement_timeout = 1", "statement_timeout", "1ms"); 4]) {
        let client = world.client().await;
        client.batch_execute(sql).await.unwrap();
        clients.push(client);
    }
    // While this one writes, a snapshot that is safe for serializable, read-only and deferrable is not to be had.
    let writer = serializable_writer(&world.blue).await;
    let began = std::time::Instant::now();
    world.switch("green", 1).await;
    assert!(began.elapsed() < Duration::from_secs(4), "waited for the writer: {:?}", began.elapsed());
    writer.batch_execute("rollback").await.unwrap();
    let hurried = clients[0].simple_query("select pg_sleep(0.1)").await;
    assert_eq!(hurried.unwrap_err().code().map(|code| code.code()), Some("57014"));
    for ((sql, name, want), client) in ODD.iter().zip(&clients) {
        assert_eq!(shown(client, name).await, *want, "{sql}");
    }
    // PostgreSQL 17 has one more, which ends the session with its transaction.
    let hasty = world.client().await;
    hasty.batch_execute("set transaction_timeout = 1").await.unwrap();
    let warm = world.command("WARM blue EPOCH 2 LIMIT 20000").await;
    // 15 does not know it.
    assert_eq!((warm["sessions"].as_str(), warm["warm"].as_str()), ("12", "11"), "{warm:?}");
    assert!(warm["failed_reason"].contains("transaction_timeout"), "{warm:?}");
    assert_eq!(shown(&hasty, "transaction_timeout").await, "1ms", "it was looked at, and lives");
    drop(hasty);
    world.command("COOL EPOCH 2").await;
    world.switch("blue", 3).await;
    for ((sql, name, want), client) in ODD.iter().zip(&clients) {
        assert_eq!(shown(client, name).await, *want, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_be_asked_is_ended_alone() {
    let world = World::new("create role powerless").await;
    world.blue.sql("revoke execute on function pg_show_all_settings() from public").await.unwrap();
    let (odd, other) = (world.client().await, world.client().await);
    odd.batch_execute("set role powerless; prepare mine as select 1").await.unwrap();
    let warm = world.command("WARM green EPOCH 1 LIMIT 20000").await;
    assert_eq!(
        (warm["warm"].as_str(), warm["pinned"].as_str(), warm["failed"].as_str()),
        ("1", "1", "0"),
        "{warm:?}"
    );
    // A transaction of ours that failed is over, and nothing of it is left.
    odd.batch_execute("execute mine").await.unwrap();
    let repointed = world.switch("green", 2).await;
    assert_eq!((repointed["moved"].as_str(), repointed["ended"].as_str()), ("1", "1"), "{repointed:?}");
    assert!(odd.simple_query("select 1").await.is_err());
    assert_eq!(value(&other, "select who()").await, "green");
}

/// A session directly on a server, in a transaction after which no snapshot is safe until it ends.
async fn serializable_writer(server: &pgteal_testkit::Cluster) -> Client {
    let (writer, connection) = tokio_postgres::Config::new()
        .host_path(server.socket_dir())
        .port(server.port())
        .user("postgres")
        .dbname("postgres")
        .connect(NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    writer.batch_execute("begin isolation level serializable; insert into writes values (1)").await.unwrap();
    writer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_move_whatever_their_session_makes_of_its_transactions() {
    let world = World::new(SCHEMA).await;
    let mut clients = Vec::new();
    for sql in [
        "set default_transaction_isolation = 'serializable'; set default_transaction_deferrable = on; \
         set default_transaction_read_only = on",
        "set statement_timeout = 1",
    ] {
        let client = world.client().await;
        let key = clients.len();
        let lock =
            format!("select pg_advisory_lock({key}), pg_advisory_lock({key}), pg_advisory_lock(7{key})");
        client.batch_execute(&lock).await.unwrap();
        client.batch_execute(sql).await.unwrap();
        clients.push(client);
    }
    let writers = [serializable_writer(&world.blue).await, serializable_writer(&world.green).await];
    let repointed = world.switch("green", 1).await;
    assert_eq!((repointed["moved"].as_str(), repointed["ended"].as_str()), ("2", "0"), "{repointed:?}");
    let held = "select count(*) from pg_locks where locktype = 'advisory'";
    assert_eq!(world.green.sql(held).await.unwrap().trim(), "4");
    assert_eq!(world.blue.sql(held).await.unwrap().trim(), "0");
    drop(writers);
    for (key, client) in clients.iter().enumerate() {
        client
            .batch_execute("set default_transaction_deferrable = off; reset statement_timeout")
            .await
            .unwrap();
        for expected in ["t", "t", "f"] {
            assert_eq!(value(client, &format!("select pg_advisory_unlock({key})")).await, expected);
        }
    }
}
