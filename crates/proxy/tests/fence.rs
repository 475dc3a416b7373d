//! What a fenced server refuses as the first of its transaction is held and lands on the side that takes writes; and statements
//! that were carried over work there whatever became of their tables.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::time::{Duration, Instant};

use pgteal_testkit::{Cluster, wait_until};
use pgteal_wire::message::frontend::{put_bind, put_execute, put_parse, put_query, put_sync};
use pgteal_wire::message::report::Fields;
use pgteal_wire::message::tag::front;
use pgteal_wire::message::{backend, put};
use pgteal_wire::startup::{ProtocolVersion, encode_cancel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use world::raw::{Raw, first_value, tags};
use world::{World, value};

/// The fence as `crates/postgres/src/fence.rs` makes it, as far as clients see it.
const SCHEMA: &str = "create table t (who text); create schema pgteal; \
    create function pgteal.fence() returns trigger language plpgsql as 'begin return null; end'; \
    create trigger \"~pgteal_fence\" before insert or update or delete on t for each statement execute function pgteal.fence();";
const RAISE: &str = "create or replace function pgteal.fence() returns trigger language plpgsql as $$begin \
    raise exception 'pgteal: this server is fenced, writes are refused' using errcode = '25006'; end$$; \
    alter database postgres set default_transaction_read_only = on";
const LOWER: &str = "create or replace function pgteal.fence() returns trigger language plpgsql as 'begin return null; end'; \
    alter database postgres reset default_transaction_read_only";

/// A session on a server, from before its fence.
async fn direct(server: &Cluster) -> Client {
    let mut config = tokio_postgres::Config::new();
    config.host_path(server.socket_dir()).port(server.port()).user("postgres").dbname("postgres");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Clients are held, blue is fenced, and nobody releases them: the hold comes to its limit.
async fn expired(world: &World, blue: &Client, epoch: u64) {
    world.command(&format!("HOLD EPOCH {epoch} LIMIT 200")).await;
    blue.batch_execute(RAISE).await.unwrap();
    state(world, "state", "flowing").await;
}

async fn state(world: &World, column: &str, expected: &str) {
    wait_until(&format!("{column} to be {expected}"), Duration::from_secs(10), async || {
        let state = world.command("SHOW STATE").await;
        if state[column] == expected { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await
    .unwrap();
}

async fn written(server: &Cluster) -> String {
    server
        .sql("select coalesce(string_agg(who, ' ' order by who), '') from t")
        .await
        .unwrap()
        .trim()
        .to_owned()
}

type Writing = JoinHandle<Result<(), tokio_postgres::Error>>;

/// Writers of every kind, each in the middle of its first write.
async fn writers(
    world: &World,
    prepared: (Client, tokio_postgres::Statement),
    old: Vec<Client>,
) -> Vec<Writing> {
    let mut old = old.into_iter();
    let (simple, extended, block, mut transaction) =
        (old.next().unwrap(), old.next().unwrap(), old.next().unwrap(), old.next().unwrap());
    let new = world.client().await;
    vec![
        tokio::spawn(async move { simple.batch_execute("insert into t values ('simple')").await }),
        tokio::spawn(
            async move { extended.execute("insert into t values ($1)", &[&"extended"]).await.map(drop) },
        ),
        tokio::spawn(
            async move { block.batch_execute("begin; insert into t values ('block'); commit").await },
        ),
        tokio::spawn(async move {
            let t = transaction.transaction().await?;
            t.execute("insert into t values ($1)", &[&"transaction"]).await?;
            let rows = t.query("select who from t where who = 'transaction'", &[]).await?;
            assert_eq!(rows.len(), 1, "it reads its own write");
            t.commit().await
        }),
        tokio::spawn(async move { prepared.0.execute(&prepared.1, &[&"prepared"]).await.map(drop) }),
        tokio::spawn(async move { new.batch_execute("insert into t values ('new')").await }),
    ]
}

const ALL: &str = "block extended new prepared simple transaction";

async fn before_the_fence(world: &World) -> ((Client, tokio_postgres::Statement), Vec<Client>) {
    let mut old = Vec::new();
    for _ in 0..4 {
        old.push(world.client().await);
    }
    let prepared = world.client().await;
    let statement = prepared.prepare("insert into t values ($1)").await.unwrap();
    ((prepared, statement), old)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_behind_a_hold_that_came_to_its_limit_land_where_writes_are_taken() {
    for there in ["green", "blue"] {
        let world = World::with(SCHEMA, "[limits]\nfence_wait_ms = 120000\n").await;
        let blue = direct(&world.blue).await;
        let (prepared, old) = before_the_fence(&world).await;
        let reader = world.client().await;
        expired(&world, &blue, 1).await;
        let writing = writers(&world, prepared, old).await;
        state(&world, "held", "6").await;
        assert_eq!(value(&reader, "select count(*) from t").await, "0", "who reads is not kept");
        if there == "green" {
            world.switch("green", 2).await;
        } else {
            blue.batch_execute(LOWER).await.unwrap();
        }
        for writer in writing {
            writer.await.unwrap().unwrap();
        }
        let (blue, green) = (written(&world.blue).await, written(&world.green).await);
        assert_eq!((blue.as_str(), green.as_str()), if there == "green" { ("", ALL) } else { (ALL, "") });
        state(&world, "held", "0").await;
        state(&world, "busy", "0").await;
    }
}

async fn sqlstate(client: &Client, sql: &str) -> String {
    let error = client.batch_execute(sql).await.expect_err(sql);
    error.code().unwrap_or_else(|| panic!("{sql}: {error}")).code().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_made_itself_read_only_and_who_has_begun_otherwise_is_told_at_once() {
    let world = World::new(SCHEMA).await;
    let blue = direct(&world.blue).await;
    let (client, other) = (world.client().await, world.client().await);
    other.batch_execute("set default_transaction_read_only = on").await.unwrap();
    expired(&world, &blue, 1).await;
    let began = Instant::now();
    let write = "insert into t values ('no')";
    assert_eq!(sqlstate(&other, write).await, "25006");
    // Of a session that is read-only by the fence, too.
    let under = world.client().await;
    for begin in ["begin read only", "BEGIN READ  ONLY", "start transaction read\n/* and */ only"] {
        for client in [&client, &under] {
            assert_eq!(sqlstate(client, &format!("{begin}; {write}; commit")).await, "25006", "{begin}");
            client.batch_execute("rollback").await.unwrap();
        }
    }
    client.batch_execute("begin; select 1").await.unwrap();
    assert_eq!(sqlstate(&client, write).await, "25006", "something of the transaction was answered");
    assert_eq!(sqlstate(&client, write).await, "25P02");
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(sqlstate(&client, &format!("select 1; {write}")).await, "25006");
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    // Of a new session nobody asked that it be read-only.
    let new = world.client().await;
    new.batch_execute("set default_transaction_read_only = off").await.unwrap();
    let writes = tokio::spawn(async move { new.batch_execute("insert into t values ('yes')").await });
    state(&world, "held", "1").await;
    blue.batch_execute(LOWER).await.unwrap();
    writes.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_refusal_is_shown_when_the_fence_outlasts_the_limit() {
    let world = World::with(SCHEMA, "[limits]\nfence_wait_ms = 300\n").await;
    let blue = direct(&world.blue).await;
    let client = world.client().await;
    expired(&world, &blue, 1).await;
    let new = world.client().await;
    for client in [&client, &new] {
        let began = Instant::now();
        assert_eq!(sqlstate(client, "insert into t values ('no')").await, "25006");
        assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
        // The server's transaction is what its client takes it for.
        client.batch_execute("begin").await.unwrap();
        assert_eq!(sqlstate(client, "insert into t values ('no')").await, "25006");
        assert_eq!(sqlstate(client, "select 1").await, "25P02");
        client.batch_execute("rollback").await.unwrap();
    }
    blue.batch_execute(LOWER).await.unwrap();
    client.batch_execute("insert into t values ('yes')").await.unwrap();
    assert_eq!(written(&world.blue).await, "yes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_the_fence_is_cancelled_and_what_comes_behind_it_keeps_its_place() {
    let world = World::new(SCHEMA).await;
    let blue = direct(&world.blue).await;
    let (mut raw, greeting) = Raw::connect(&world, ProtocolVersion::V3_0).await;
    let (_, body) = greeting.iter().find(|(tag, _)| *tag == b'K').unwrap();
    let key = backend::parse_backend_key_data(body).unwrap();
    let cancel = async || {
        let mut stream = TcpStream::connect(("127.0.0.1", world.port())).await.unwrap();
        stream.write_all(&encode_cancel(&key)).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    };
    expired(&world, &blue, 1).await;
    raw.send(|out| put_query(out, "insert into t values ('cancelled')")).await;
    state(&world, "held", "1").await;
    cancel().await;
    let answer = raw.until(b'Z').await;
    assert_eq!((tags(&answer).as_str(), &answer[1].1[..]), ("EZ", &b"I"[..]));
    assert_eq!(Fields::parse(&answer[0].1).unwrap().sqlstate(), "57014");
    // In a transaction that has begun, the server has to know.
    raw.send(|out| put_query(out, "begin")).await;
    assert_eq!(tags(&raw.until(b'Z').await), "CZ");
    raw.send(|out| put_query(out, "insert into t values ('cancelled')")).await;
    state(&world, "held", "1").await;
    cancel().await;
    let answer = raw.until(b'Z').await;
    assert_eq!((tags(&answer).as_str(), &answer[1].1[..]), ("EZ", &b"E"[..]));
    raw.send(|out| put_query(out, "rollback")).await;
    assert_eq!(tags(&raw.until(b'Z').await), "CZ");
    // A client that waits for each answer before it says more, with much behind the statement that is refused.
    raw.send(|out| {
        put_parse(out, b"w", b"insert into t values ($1) returning who");
        put(out, front::DESCRIBE, |out| out.extend_from_slice(b"Sw\0"));
        put(out, front::FLUSH, |_| {});
    })
    .await;
    assert_eq!(tags(&raw.until(b'T').await), "1tT");
    raw.send(|out| {
        put_bind(out, b"w", &[Some(&b"one"[..])]);
        put_execute(out);
        put_sync(out);
        for n in 0..300 {
            put_query(out, &format!("select {n}, '{}'", "x".repeat(200)));
        }
    })
    .await;
    state(&world, "held", "1").await;
    assert!(raw.quiet().await || raw.inbox.starts_with(b"2"), "{:?}", raw.inbox);
    blue.batch_execute(LOWER).await.unwrap();
    assert_eq!(tags(&raw.until(b'Z').await), "2DCZ");
    for n in 0..300 {
        assert_eq!(first_value(&raw.until(b'Z').await), n.to_string());
    }
    assert_eq!(written(&world.blue).await, "one");
}

/// What the fence lets pass, and what does more than its transaction before it meets it.
const EFFECTS: &str = "create table free (who text); \
    create procedure commits() language plpgsql as $$begin insert into free values ('call'); commit; \
        insert into t values ('no'); end$$; \
    create function locks() returns void language plpgsql as $$begin perform pg_advisory_lock(7); \
        insert into t values ('no'); end$$;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_has_done_nothing_yet_is_said_again() {
    let world = World::with(&format!("{SCHEMA} {EFFECTS}"), "[limits]\nfence_wait_ms = 120000\n").await;
    let blue = direct(&world.blue).await;
    let mut clients = Vec::new();
    let again = [
        "insert into t values ('yes')",
        "/* a */ update t set who = who",
        "begin; delete from t where false; commit",
    ];
    for _ in again {
        clients.push(world.client().await);
    }
    let client = world.client().await;
    client.batch_execute("prepare p as insert into t values ($1)").await.unwrap();
    expired(&world, &blue, 1).await;
    for shown in [
        "call commits()",
        "do $$begin insert into free values ('do'); commit; insert into t values ('no'); end$$",
        "select locks()",
        "with w as (insert into t values ('no')) select 1 where pg_advisory_lock(7) is null",
        "execute p(pg_advisory_lock(7)::text)",
        "explain analyze insert into t values ('no')",
    ] {
        let answer = tokio::time::timeout(Duration::from_secs(20), sqlstate(&client, shown)).await;
        assert_eq!(answer.expect(shown), "25006", "{shown}");
        client.batch_execute("rollback").await.unwrap();
    }
    let done = world.blue.sql("select string_agg(who, ' ' order by who) from free").await.unwrap();
    assert_eq!(done.trim(), "call do");
    let mut locks = 0;
    while value(&client, "select pg_advisory_unlock(7)").await == "t" {
        locks += 1;
    }
    assert_eq!(locks, 3, "each that was shown took it once");
    let writing: Vec<_> = clients
        .into_iter()
        .zip(again)
        .map(|(client, sql)| tokio::spawn(async move { client.batch_execute(sql).await }))
        .collect();
    state(&world, "held", "3").await;
    blue.batch_execute(LOWER).await.unwrap();
    for writer in writing {
        writer.await.unwrap().unwrap();
    }
    assert_eq!(written(&world.blue).await, "yes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fences_words_in_somebody_elses_mouth_mean_nothing() {
    let world = World::new(&format!("{SCHEMA} create schema evil; create schema xpgteal;")).await;
    let blue = direct(&world.blue).await;
    let client = world.client().await;
    let raise = "begin raise exception 'pgteal: this server is fenced' using errcode = '25006'; end";
    assert_eq!(sqlstate(&client, &format!("do $${raise}$$")).await, "25006");
    for name in ["evil.\"pgteal.fence()\"", "xpgteal.fence"] {
        let function = format!("create function {name}() returns void language plpgsql as $${raise}$$");
        client.batch_execute(&function).await.unwrap();
        assert_eq!(sqlstate(&client, &format!("select {name}()")).await, "25006");
    }
    // Nobody believes that there is a fence: who meets it first is told.
    blue.batch_execute(RAISE).await.unwrap();
    assert_eq!(sqlstate(&client, "insert into t values ('no')").await, "25006");
    blue.batch_execute(LOWER).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_without_a_hold_is_met_once() {
    let world = World::new(SCHEMA).await;
    let blue = direct(&world.blue).await;
    let (first, second) = (world.client().await, world.client().await);
    blue.batch_execute(RAISE).await.unwrap();
    assert_eq!(sqlstate(&first, "insert into t values ('no')").await, "25006");
    let writing: Vec<_> = [first, second]
        .into_iter()
        .map(|client| {
            tokio::spawn(async move {
                client.batch_execute("insert into t values ('yes')").await.inspect_err(|e| eprintln!("{e:?}"))
            })
        })
        .collect();
    state(&world, "held", "2").await;
    world.switch("green", 1).await;
    for writer in writing {
        writer.await.unwrap().unwrap();
    }
    assert_eq!(written(&world.green).await, "yes yes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_were_carried_work_whatever_became_of_their_tables() {
    let world = World::new("create table t (v text); insert into t values ('x');").await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = world.client().await;
        let (one, other) = (
            client.prepare("select v from t").await.unwrap(),
            client.prepare("select v from t where v = $1").await.unwrap(),
        );
        clients.push((client, one, other));
    }
    world.command("WARM green EPOCH 1 LIMIT 20000").await;
    world.green.sql("alter table t alter v type varchar(10)").await.unwrap();
    world.switch("green", 1).await;
    let (client, one, other) = &clients[0];
    for _ in 0..2 {
        // Both at once: the second is said before the first is answered.
        let (a, b) = tokio::join!(client.query(one, &[]), client.query(other, &[&"x"]));
        assert_eq!((a.unwrap()[0].get::<_, &str>(0), b.unwrap()[0].get::<_, &str>(0)), ("x", "x"));
    }
    // Nothing but BEGIN was answered.
    let (client, one, other) = &mut clients[1];
    let t = client.transaction().await.unwrap();
    assert_eq!(t.query(&*one, &[]).await.unwrap().len(), 1);
    // And here something was: only the client knows what to do about it.
    assert_eq!(t.query(&*other, &[&"x"]).await.unwrap_err().code().unwrap().code(), "0A000");
    t.rollback().await.unwrap();
    assert_eq!(client.query(&*other, &[&"x"]).await.unwrap().len(), 1);
    // What changes later is as it is without us.
    let (client, one, _) = &clients[2];
    assert_eq!(client.query(one, &[]).await.unwrap().len(), 1);
    world.green.sql("alter table t alter v type text").await.unwrap();
    assert_eq!(client.query(one, &[]).await.unwrap_err().code().unwrap().code(), "0A000");
}
