//! Cancel requests for statements that are held, and while the route changes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::time::Duration;

use bytes::BytesMut;
use pgteal_testkit::wait_until;
use pgteal_wire::cancel::CancelKey;
use pgteal_wire::message::backend::parse_backend_key_data;
use pgteal_wire::message::frontend::{put_bind, put_execute, put_parse, put_query, put_sync};
use pgteal_wire::message::report::Fields;
use pgteal_wire::startup::{ProtocolVersion, encode_cancel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;
use world::raw::{Raw, first_value, tags};
use world::{World, value};

async fn connect(world: &World, version: ProtocolVersion) -> (Raw, CancelKey) {
    let (raw, greeting) = Raw::connect(world, version).await;
    let (_, body) = greeting.iter().find(|(tag, _)| *tag == b'K').unwrap();
    (raw, parse_backend_key_data(body).unwrap())
}

/// Sends a request as clients do, and waits until the connection is closed.
async fn cancel(world: &World, key: &CancelKey) {
    let mut stream = TcpStream::connect(("127.0.0.1", world.port())).await.unwrap();
    stream.write_all(&encode_cancel(key)).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
}

async fn held(world: &World, count: &str) {
    wait_until("the statements to be held", Duration::from_secs(5), async || {
        let state = world.command("SHOW STATE").await;
        if state["held"] == count { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await
    .unwrap();
}

fn insert(out: &mut BytesMut) {
    put_query(out, "insert into t values (1)");
}

fn insert_unsynced(out: &mut BytesMut) {
    put_parse(out, b"named", b"insert into t values (2)");
    put_bind::<&[u8]>(out, b"named", &[]);
    put_execute(out);
}

fn insert_extended(out: &mut BytesMut) {
    insert_unsynced(out);
    put_sync(out);
}

fn insert_long(out: &mut BytesMut) {
    put_query(out, &format!("insert into t values (3) /*{}*/", "x".repeat(300_000)));
}

fn assert_cancelled(error: &(u8, Vec<u8>)) {
    assert_eq!(error.0, b'E', "{error:?}");
    let fields = Fields::parse(&error.1).unwrap();
    assert_eq!(
        (fields.sqlstate(), fields.message(), fields.is_fatal()),
        ("57014", "canceling statement due to user request", false)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_statement_is_cancelled_at_once_and_reaches_no_server() {
    let world = World::new("create table t (id int);").await;
    let statements: [fn(&mut BytesMut); 3] = [insert, insert_extended, insert_long];
    for (version, said) in
        [ProtocolVersion::V3_0, ProtocolVersion::V3_2].into_iter().flat_map(|v| statements.map(|s| (v, s)))
    {
        let (mut raw, key) = connect(&world, version).await;
        world.command("HOLD EPOCH 1 LIMIT 10000").await;
        raw.send(said).await;
        held(&world, "1").await;
        let mut wrong = key.secret().to_vec();
        wrong[0] ^= 1;
        cancel(&world, &CancelKey::new(key.pid(), &wrong).unwrap()).await;
        assert!(raw.quiet().await, "cancelled by somebody else's key");
        cancel(&world, &key).await;
        let answer = raw.until(b'Z').await;
        assert_eq!((tags(&answer).as_str(), &answer[1].1[..]), ("EZ", &b"I"[..]));
        assert_cancelled(&answer[0]);
        // The next one is held again, and a later cancel is for that one.
        raw.send(|out| put_query(out, "select count(*) from t")).await;
        held(&world, "1").await;
        world.command("RELEASE EPOCH 1").await;
        assert_eq!(first_value(&raw.until(b'Z').await), "0");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_first_of_a_pipeline_is_cancelled_and_an_unfinished_one_to_its_sync() {
    let world = World::new("create table t (id int);").await;
    let (mut raw, key) = connect(&world, ProtocolVersion::V3_0).await;
    world.command("HOLD EPOCH 1 LIMIT 10000").await;
    raw.send(insert_unsynced).await;
    held(&world, "1").await;
    cancel(&world, &key).await;
    assert_cancelled(&raw.next().await.unwrap());
    // What comes before its Sync is dropped as a server drops it, a Query too.
    raw.send(insert).await;
    raw.send(put_execute).await;
    assert!(raw.quiet().await, "nothing is said before the Sync");
    raw.send(|out| {
        put_sync(out);
        insert_extended(out);
        put_query(out, "insert into t values (7)");
    })
    .await;
    assert_eq!(tags(&raw.until(b'Z').await), "Z");
    held(&world, "1").await;
    cancel(&world, &key).await;
    let answer = raw.until(b'Z').await;
    assert_eq!(tags(&answer), "EZ");
    world.command("RELEASE EPOCH 1").await;
    assert_eq!(tags(&raw.until(b'Z').await), "CZ");
    raw.send(|out| put_query(out, "select sum(id) from t")).await;
    assert_eq!(first_value(&raw.until(b'Z').await), "7");
    // That statement's name was never given to a server.
    raw.send(|out| {
        put_bind::<&[u8]>(out, b"named", &[]);
        put_sync(out);
    })
    .await;
    let answer = raw.until(b'Z').await;
    assert_eq!(Fields::parse(&answer[0].1).unwrap().sqlstate(), "26000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_around_a_repoint_reaches_who_runs_the_statement() {
    let world = World::new("create table t (id int);").await;
    let (mut raw, key) = connect(&world, ProtocolVersion::V3_2).await;
    world.command("WARM green EPOCH 1 LIMIT 20000").await;
    world.command("HOLD EPOCH 1 LIMIT 10000").await;
    world.command("SETTLE EPOCH 1 LIMIT 5000").await;
    raw.send(insert).await;
    held(&world, "1").await;
    world.command("REPOINT green EPOCH 1").await;
    cancel(&world, &key).await;
    assert_eq!(tags(&raw.until(b'Z').await), "EZ");
    raw.send(|out| put_query(out, "select pg_sleep(20)")).await;
    held(&world, "1").await;
    world.command("RELEASE EPOCH 1").await;
    wait_until("the statement to run on green", Duration::from_secs(5), async || {
        let running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(20)'";
        let count = world.green.sql(running).await.unwrap();
        if count.trim() == "1" { Ok(()) } else { Err(count) }
    })
    .await
    .unwrap();
    cancel(&world, &key).await;
    let answer = raw.until(b'Z').await;
    assert_cancelled(&answer[answer.len() - 2]);
}

/// Not warmed, and the new server does not answer: the statement waits for its upstream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_waits_for_its_upstream_is_cancelled_at_once() {
    let world = World::new("create table t (id int);").await;
    let (mut raw, key) = connect(&world, ProtocolVersion::V3_0).await;
    let pid = std::fs::read_to_string(world.green.data_dir().join("postmaster.pid")).unwrap();
    let signal = |name: &str| {
        let pid = pid.lines().next().unwrap();
        assert!(std::process::Command::new("kill").args([name, pid]).status().unwrap().success());
    };
    signal("-STOP");
    world.command("HOLD EPOCH 1 LIMIT 10000").await;
    world.command("REPOINT green EPOCH 1").await;
    world.command("RELEASE EPOCH 1").await;
    raw.send(insert).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    cancel(&world, &key).await;
    assert_eq!(tags(&raw.until(b'Z').await), "EZ");
    raw.send(|out| put_query(out, "select count(*) from t")).await;
    signal("-CONT");
    assert_eq!(first_value(&raw.until(b'Z').await), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancels_of_one_session_never_hit_another() {
    let world = World::new("").await;
    let (mine, other) = (world.client().await, world.client().await);
    let token = mine.cancel_token();
    let cancelling = async {
        for _ in 0..150 {
            token.cancel_query(NoTls).await.unwrap();
        }
    };
    let working = async {
        for n in 0..500 {
            assert_eq!(value(&other, &format!("select {n}")).await, n.to_string());
        }
    };
    let suffering = async {
        let mut cancelled = 0;
        while cancelled < 20 {
            match mine.simple_query("select pg_sleep(0.05)").await {
                Ok(_) => break,
                Err(error) => assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED)),
            }
            cancelled += 1;
        }
        cancelled
    };
    let ((), (), cancelled) = tokio::join!(cancelling, working, suffering);
    assert!(cancelled > 0, "none was cancelled");
}

/// Clients take the end of the connection for the end of the cancel: the next statement is safe from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_not_over_before_the_server_has_it() {
    let world = World::new("").await;
    let (mut raw, key) = connect(&world, ProtocolVersion::V3_0).await;
    let state = async |column: &str, expected: &str| {
        wait_until(&format!("{column} to be {expected}"), Duration::from_secs(5), async || {
            let state = world.command("SHOW STATE").await;
            if state[column] == expected { Ok(()) } else { Err(format!("{state:?}")) }
        })
        .await
        .unwrap();
    };
    for is_at_risk in [false, true] {
        if is_at_risk {
            // The request goes by the session, which may have to hold again what is cancelled.
            world.command("HOLD EPOCH 1 LIMIT 50").await;
            state("state", "flowing").await;
        }
        raw.send(|out| put_query(out, "select pg_sleep(60)")).await;
        state("busy", "1").await;
        world.blue.freeze().unwrap();
        let mut request = TcpStream::connect(("127.0.0.1", world.port())).await.unwrap();
        request.write_all(&encode_cancel(&key)).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(500), request.read(&mut [0])).await;
        world.blue.thaw();
        assert!(early.is_err(), "closed although no server can have it; at risk: {is_at_risk}");
        assert_eq!(request.read(&mut [0]).await.unwrap_or(0), 0);
        let answer = raw.until(b'Z').await;
        assert_cancelled(answer.iter().find(|(tag, _)| *tag == b'E').unwrap());
    }
}
