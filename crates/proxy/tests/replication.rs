//! Replication connections: which they are, that the gate holds what they say, and how a stream ends at a repoint.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use pgteal_testkit::Cluster;
use pgteal_wire::message::frontend::put_query;
use pgteal_wire::message::report::Fields;
use pgteal_wire::message::rows::parse_data_row;
use pgteal_wire::startup::{ProtocolVersion, StartupMessage};
use world::World;
use world::raw::{Raw, tags};

fn startup(replication: &str) -> StartupMessage {
    let params = [("user", "postgres"), ("database", "postgres"), ("replication", replication)];
    StartupMessage::new(ProtocolVersion::V3_0, params)
}

async fn walsender(world: &World, replication: &str) -> Raw {
    let mut raw = Raw::open(world.port(), &startup(replication)).await;
    raw.until(b'Z').await;
    raw
}

/// What a server itself takes `replication=` for; `None` when it refuses it.
async fn is_walsender(server: &Cluster, replication: &str) -> Option<bool> {
    let mut raw = Raw::open(server.port(), &startup(replication)).await;
    loop {
        match raw.next().await?.0 {
            b'Z' => break,
            b'E' => return None,
            _ => {}
        }
    }
    raw.send(|out| put_query(out, "IDENTIFY_SYSTEM")).await;
    // No SQL: only a walsender knows it.
    Some(tags(&raw.until(b'Z').await) == "TDCZ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replication_means_what_it_means_to_the_server() {
    let (old, new) = tokio::try_join!(Cluster::start_new(14), Cluster::start_new(18)).unwrap();
    let values = [
        "database", "Database", "data", "true", "TRUE", "tr", "t", "truex", "yes", "Y", "ye", "on", "On",
        "o", "1", "11", "false", "f", "no", "n", "of", "off", "0", "", " true",
    ];
    for value in values {
        for server in [&old, &new] {
            let known = is_walsender(server, value).await;
            assert_eq!(startup(value).is_replication(), known.unwrap_or(false), "{value:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replication_connection_says_is_held_and_a_stream_is_not() {
    let world = World::new("create table t (id int);").await;
    let mut speaks = walsender(&world, "database").await;
    let mut streams = walsender(&world, "true").await;
    streams.send(|out| put_query(out, "IDENTIFY_SYSTEM")).await;
    let system = streams.until(b'Z').await;
    let row = &system.iter().find(|(tag, _)| *tag == b'D').unwrap().1;
    let at = String::from_utf8(parse_data_row(row).unwrap()[2].unwrap().to_vec()).unwrap();
    streams.send(|out| put_query(out, &format!("START_REPLICATION {at}"))).await;
    assert_eq!(streams.next().await.unwrap().0, b'W');
    let warm = world.command("WARM green EPOCH 1 LIMIT 10000").await;
    assert_eq!((warm["pinned"].as_str(), warm["failed"].as_str()), ("2", "0"), "{warm:?}");
    let sessions = world.rows("SHOW SESSIONS").await;
    let shown: Vec<_> = sessions.iter().map(|row| (row["state"].as_str(), row["reason"].as_str())).collect();
    assert_eq!(shown, [("idle", "a replication connection"), ("idle", "a replication stream")]);
    world.command("HOLD EPOCH 1 LIMIT 20000").await;
    // A stream keeps nobody from draining, and what others write goes on through it.
    assert_eq!(world.command("DRAIN EPOCH 1 BUDGET 1000").await["busy"], "0");
    world.blue.sql("insert into t values (1)").await.unwrap();
    while streams.next().await.unwrap().1.first() != Some(&b'w') {}
    // SQL of a walsender is as much a transaction as any.
    speaks.send(|out| put_query(out, "insert into t values (2)")).await;
    assert!(speaks.quiet().await);
    assert_eq!(world.command("SHOW STATE").await["held"], "1");
    world.command("RELEASE EPOCH 1").await;
    assert_eq!(tags(&speaks.until(b'Z').await), "CZ");
    world.command("HOLD EPOCH 2 LIMIT 20000").await;
    assert_eq!(world.command("DRAIN EPOCH 2 BUDGET 1000").await["busy"], "0");
    let repointed = world.command("REPOINT green EPOCH 2").await;
    assert_eq!(repointed["ended"], "2", "{repointed:?}");
    for raw in [&mut speaks, &mut streams] {
        let error = loop {
            let message = raw.next().await.expect("ended without a word");
            if message.0 == b'E' {
                break message.1;
            }
        };
        let fields = Fields::parse(&error).unwrap();
        assert_eq!((fields.sqlstate(), fields.is_fatal()), ("57P01", true), "{}", fields.message());
    }
    world.command("RELEASE EPOCH 2").await;
    let mut anew = walsender(&world, "database").await;
    anew.send(|out| put_query(out, "select who()")).await;
    assert_eq!(world::raw::first_value(&anew.until(b'Z').await), "green");
}

/// A walsender has no database, whatever it names; the console is a database of the proxy's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_is_entered_by_its_name_only() {
    let world = World::new("create role pgteal superuser login;").await;
    world.blue.sql("create database pgteal").await.unwrap();
    let mut user_only =
        Raw::open(world.port(), &StartupMessage::new(ProtocolVersion::V3_0, [("user", "pgteal")])).await;
    user_only.until(b'Z').await;
    user_only.send(|out| put_query(out, "select who()")).await;
    let answer = user_only.until(b'Z').await;
    // No such function there: it is the server's database, not the console.
    assert_eq!(Fields::parse(&answer[0].1).unwrap().sqlstate(), "42883");
    let params = [("user", "pgteal"), ("database", "pgteal"), ("replication", "true")];
    let mut walsender = Raw::open(world.port(), &StartupMessage::new(ProtocolVersion::V3_0, params)).await;
    walsender.until(b'Z').await;
    walsender.send(|out| put_query(out, "IDENTIFY_SYSTEM")).await;
    assert_eq!(tags(&walsender.until(b'Z').await), "TDCZ");
}
