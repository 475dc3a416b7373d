//! What drivers do that tokio-postgres does not: raw messages across a switch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::time::Duration;

use bytes::BytesMut;
use pgteal_wire::message::backend::parse_backend_key_data;
use pgteal_wire::message::frontend::{put_bind, put_execute, put_parse, put_query, put_sync};
use pgteal_wire::message::report::Fields;
use pgteal_wire::startup::ProtocolVersion;
use tokio::io::AsyncWriteExt;
use world::World;
use world::raw::{Raw, first_value, parameter, tags};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_learns_of_the_new_servers_parameters() {
    let world = World::new("").await;
    let (mut raw, greeting) = Raw::connect(&world, ProtocolVersion::V3_0).await;
    assert!(parameter(&greeting, "server_version").unwrap().starts_with("15."));
    for (epoch, to, version) in [(1, "green", "18."), (2, "blue", "15."), (3, "green", "18.")] {
        world.switch(to, epoch).await;
        // Not before it has asked something: drivers that wait for notifications know no other message.
        assert!(raw.quiet().await && raw.inbox.is_empty(), "{:?}", raw.inbox);
        raw.send(|out| put_query(out, "select who()")).await;
        let answer = raw.until(b'Z').await;
        assert_eq!(first_value(&answer), to);
        assert!(parameter(&answer, "server_version").unwrap().starts_with(version), "{answer:?}");
    }
    // There and back: nothing has changed for who slept.
    world.switch("blue", 4).await;
    world.switch("green", 5).await;
    raw.send(|out| put_query(out, "select who()")).await;
    assert_eq!(parameter(&raw.until(b'Z').await, "server_version"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_have_the_length_of_the_clients_protocol() {
    let world = World::new("").await;
    for (version, length) in [(ProtocolVersion::V3_0, 4), (ProtocolVersion::V3_2, 32)] {
        let (_, greeting) = Raw::connect(&world, version).await;
        let (_, body) = greeting.iter().find(|(tag, _)| *tag == b'K').unwrap();
        assert_eq!(parse_backend_key_data(body).unwrap().secret().len(), length);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unnamed_statement_of_a_driver_that_leaves_it_survives() {
    let world = World::new("").await;
    let (mut raw, _) = Raw::connect(&world, ProtocolVersion::V3_0).await;
    let prepare = |out: &mut BytesMut| {
        put_parse(out, b"", b"select who()");
        put_sync(out);
    };
    let run = |out: &mut BytesMut| {
        put_bind::<&[u8]>(out, b"", &[]);
        put_execute(out);
        put_sync(out);
    };
    raw.send(prepare).await;
    assert_eq!(tags(&raw.until(b'Z').await), "1Z");
    world.switch("green", 1).await;
    raw.send(run).await;
    let answer = raw.until(b'Z').await;
    assert_eq!((tags(&answer).as_str(), first_value(&answer).as_str()), ("2DCZ", "green"));
    // And prepared between WARM and HOLD, and bound while held.
    world.command("WARM blue EPOCH 2").await;
    raw.send(prepare).await;
    assert_eq!(tags(&raw.until(b'Z').await), "1Z");
    world.command("HOLD EPOCH 2 LIMIT 10000").await;
    raw.send(run).await;
    let settled = world.command("SETTLE EPOCH 2 LIMIT 5000").await;
    assert_eq!(settled["stale"], "0", "{settled:?}");
    assert_eq!(world.command("REPOINT blue EPOCH 2").await["moved"], "1");
    assert!(raw.quiet().await, "held");
    world.command("RELEASE EPOCH 2").await;
    assert_eq!(first_value(&raw.until(b'Z').await), "blue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_is_cut_between_two_transactions_and_nowhere_else() {
    let world = World::new("create table t (n int)").await;
    let (mut raw, _) = Raw::connect(&world, ProtocolVersion::V3_0).await;
    world.command("WARM green EPOCH 1").await;
    // A transaction of three units is open, its end and two more transactions are in the pipe when the gate closes.
    raw.send(|out| put_query(out, "begin")).await;
    raw.until(b'Z').await;
    assert_eq!(world.command("HOLD EPOCH 1 LIMIT 20000").await["busy"], "1");
    raw.send(|out| {
        put_query(out, "insert into t values (1)");
        put_query(out, "commit");
        put_query(out, "begin");
        put_query(out, "insert into t values (2)");
        put_query(out, "commit");
        put_query(out, "select who()");
    })
    .await;
    assert_eq!(tags(&raw.until(b'Z').await), "CZ");
    assert_eq!(tags(&raw.until(b'Z').await), "CZ");
    assert!(raw.quiet().await);
    assert_eq!(world.command("DRAIN EPOCH 1 BUDGET 1000").await["busy"], "0");
    assert_eq!(world.command("REPOINT green EPOCH 1").await["moved"], "1");
    assert!(raw.quiet().await);
    world.command("RELEASE EPOCH 1").await;
    for expected in ["CZ", "CZ", "CZ"] {
        assert_eq!(tags(&raw.until(b'Z').await), expected);
    }
    assert_eq!(first_value(&raw.until(b'Z').await), "green");
    assert_eq!(world.blue.sql("select n from t").await.unwrap(), "1");
    assert_eq!(world.green.sql("select n from t").await.unwrap(), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_ask_nothing_hold_nobody_up() {
    let world = World::new("").await;
    let (mut raw, _) = Raw::connect(&world, ProtocolVersion::V3_0).await;
    // Flush and the end of a COPY that there is not: no answer comes.
    raw.send(|out| out.extend_from_slice(b"H\0\0\0\x04c\0\0\0\x04")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.command("HOLD EPOCH 1 LIMIT 5000").await["busy"], "0");
    world.command("RELEASE EPOCH 1").await;
    // Extended messages without their Sync are a transaction that is open.
    raw.send(|out| put_parse(out, b"s", b"select 1")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.command("HOLD EPOCH 2 LIMIT 5000").await["busy"], "1");
    raw.send(put_sync).await;
    assert_eq!(world.command("DRAIN EPOCH 2 BUDGET 2000").await["busy"], "0");
    world.command("RELEASE EPOCH 2").await;
    assert_eq!(tags(&raw.until(b'Z').await), "1Z");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_message_end_the_session_cleanly() {
    let world = World::new("").await;
    let (mut raw, _) = Raw::connect(&world, ProtocolVersion::V3_0).await;
    raw.send(|out| out.extend_from_slice(b"Q\0\0\0\x01")).await;
    let (tag, body) = raw.next().await.unwrap();
    assert_eq!((tag, Fields::parse(&body).unwrap().sqlstate()), (b'E', "08P01"));
    assert!(raw.next().await.is_none());
    assert_eq!(world.command("SHOW STATE").await["busy"], "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_come_byte_by_byte_are_the_same_messages() {
    let world = World::new("").await;
    let (mut raw, _) = Raw::connect(&world, ProtocolVersion::V3_0).await;
    raw.stream.set_nodelay(true).unwrap();
    let mut script = BytesMut::new();
    put_parse(&mut script, b"one", b"select who()");
    put_sync(&mut script);
    put_bind::<&[u8]>(&mut script, b"one", &[]);
    put_execute(&mut script);
    put_sync(&mut script);
    put_query(&mut script, "set work_mem = '7MB'");
    for byte in script {
        raw.stream.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    for expected in ["1Z", "2DCZ", "CZ"] {
        assert_eq!(tags(&raw.until(b'Z').await), expected);
    }
    // What the proxy understood of it is what it carries.
    world.switch("green", 1).await;
    raw.send(|out| {
        put_bind::<&[u8]>(out, b"one", &[]);
        put_execute(out);
        put_sync(out);
        put_query(out, "show work_mem");
    })
    .await;
    assert_eq!(first_value(&raw.until(b'Z').await), "green");
    assert_eq!(first_value(&raw.until(b'Z').await), "7MB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_too_large_to_keep_is_named_and_ended() {
    let world = World::with("", "[limits]\nprepared_bytes = 4096\n").await;
    let (mut raw, _) = Raw::connect(&world, ProtocolVersion::V3_0).await;
    let text = format!("select '{}'", "x".repeat(50_000));
    let prepare = |out: &mut BytesMut| {
        put_parse(out, b"huge", text.as_bytes());
        put_sync(out);
    };
    raw.send(prepare).await;
    assert_eq!(tags(&raw.until(b'Z').await), "1Z");
    assert_eq!(world.command("WARM green EPOCH 1").await["pinned"], "1");
    let session = world.command("SHOW SESSIONS").await;
    assert_eq!(session["reason"], "a prepared statement too large to be kept (huge)");
    raw.send(|out| put_query(out, "deallocate huge")).await;
    raw.until(b'Z').await;
    assert_eq!(world.command("WARM green EPOCH 1").await["warm"], "1", "closed, so it can move");
    raw.send(prepare).await;
    assert_eq!(tags(&raw.until(b'Z').await), "1Z");
    world.command("HOLD EPOCH 1 LIMIT 9999").await;
    world.command("SETTLE EPOCH 1 LIMIT 999").await;
    assert_eq!(world.command("REPOINT green EPOCH 1").await["ended"], "1");
    let (tag, body) = raw.until(b'E').await.pop().unwrap();
    assert_eq!((tag, Fields::parse(&body).unwrap().sqlstate()), (b'E', "57P01"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rehearsals_leave_no_unnamed_statement_of_theirs() {
    let world = World::new("").await;
    // One that leaves nothing unnamed, and one that relies on what it left.
    let (mut without, _) = Raw::connect(&world, ProtocolVersion::V3_0).await;
    without.send(|out| put_query(out, "select 'said'")).await;
    without.until(b'Z').await;
    let (mut with, _) = Raw::connect(&world, ProtocolVersion::V3_0).await;
    with.send(|out| put_query(out, "select 'said'")).await;
    with.until(b'Z').await;
    with.send(|out| {
        put_parse(out, b"", b"select 'mine ' || who()");
        put_sync(out);
    })
    .await;
    with.until(b'Z').await;
    world.switch("green", 1).await;
    let log = "select count(*) from pg_stat_activity where query = $$select 'said'$$";
    assert_eq!(world.green.sql(log).await.unwrap(), "1", "there were rehearsals");
    for (raw, expected) in [(&mut without, "EZ"), (&mut with, "2DCZ")] {
        raw.send(|out| {
            put_bind::<&[u8]>(out, b"", &[]);
            put_execute(out);
            put_sync(out);
        })
        .await;
        let answer = raw.until(b'Z').await;
        assert_eq!(tags(&answer), expected, "{answer:?}");
    }
}

/// Parse, Bind and Execute of the unnamed statement, each in a unit of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unnamed_statement_stays_for_a_later_unit() {
    let world = World::new("").await;
    let (mut raw, _) = Raw::connect(&world, ProtocolVersion::V3_0).await;
    let parse = |out: &mut BytesMut| {
        put_parse(out, b"", b"select who() || $1");
        put_sync(out);
    };
    let execute = |out: &mut BytesMut| {
        put_bind(out, b"", &[Some("!")]);
        put_execute(out);
        put_sync(out);
    };
    raw.send(parse).await;
    raw.until(b'Z').await;
    // What was never looked at is looked at.
    let warm = world.command("WARM green EPOCH 1 LIMIT 20000").await;
    assert_eq!((warm["warm"].as_str(), warm["failed"].as_str()), ("1", "0"), "{warm:?}");
    raw.send(execute).await;
    assert_eq!(first_value(&raw.until(b'Z').await), "blue!");
    raw.send(|out| {
        put_parse(out, b"named", b"set work_mem = '7MB'");
        put_parse(out, b"", b"select who() || current_setting('work_mem') || $1");
        put_bind(out, b"named", &[None::<&[u8]>; 0]);
        put_execute(out);
        put_sync(out);
    })
    .await;
    raw.until(b'Z').await;
    world.switch("green", 2).await;
    raw.send(execute).await;
    assert_eq!(first_value(&raw.until(b'Z').await), "green7MB!");
    raw.send(|out| put_query(out, "select count(*) from pg_prepared_statements where name like 'pgteal%'"))
        .await;
    assert_eq!(first_value(&raw.until(b'Z').await), "0");
}
