//! What passes through the proxy must be what a direct connection would see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::pin::pin;
use std::time::Duration;

use futures::{SinkExt, StreamExt, TryStreamExt, stream};
use pgteal_testkit::wait_until;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, NoTls};
use world::{World, value};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_talk() {
    every_way("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_talk_through_the_smallest_buffers() {
    every_way("[limits]\nbuffer_bytes = 4096\nprepared_bytes = 4096\n").await;
}

async fn every_way(limits: &str) {
    let world = World::with("create table t (id int primary key, v text)", limits).await;
    simple_and_errors(&world).await;
    pipelined(&world).await;
    copy_both_ways(&world).await;
    large_values(&world).await;
    notices_and_notifications(&world).await;
    startup_is_passed(&world).await;
    // The last one's connection is made new for the next.
    wait_until("nobody to be inside", Duration::from_secs(5), async || {
        let state = world.command("SHOW STATE").await;
        if state["busy"] == "0" { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await
    .unwrap();
}

async fn simple_and_errors(world: &World) {
    let client = world.client().await;
    assert_eq!(value(&client, "select who()").await, "blue");
    let error = client.simple_query("select 1/0").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
    client.batch_execute("begin; insert into t values (1, 'a')").await.unwrap();
    let error = client.simple_query("selec").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::SYNTAX_ERROR));
    let error = client.simple_query("select 1").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    let state = world.command("SHOW STATE").await;
    assert_eq!(state["busy"], "1", "a failed transaction is open: {state:?}");
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(value(&client, "select count(*) from t").await, "0");
    // An error in a Parse must not leave a statement behind in the books.
    assert!(client.prepare("select no_such_column from t").await.is_err());
    assert_eq!(client.query_one("select 7", &[]).await.unwrap().get::<_, i32>(0), 7);
}

async fn pipelined(world: &World) {
    let client = world.client().await;
    let statement = client.prepare("select $1::int4 * 2").await.unwrap();
    let doubled: Vec<i32> = stream::iter(0..2000)
        .map(|n| {
            let (client, statement) = (&client, &statement);
            async move { client.query_one(statement, &[&n]).await.unwrap().get::<_, i32>(0) }
        })
        .buffered(200)
        .collect()
        .await;
    assert_eq!(doubled, (0..2000).map(|n| n * 2).collect::<Vec<_>>());
    let mixed = futures::future::join_all((0..100).map(|n| {
        let client = &client;
        async move {
            if n % 3 == 0 {
                assert!(client.simple_query("select 1/0").await.is_err());
            } else {
                assert_eq!(client.query_one("select $1::int4", &[&n]).await.unwrap().get::<_, i32>(0), n);
            }
        }
    }));
    mixed.await;
}

async fn copy_both_ways(world: &World) {
    let client = world.client().await;
    client.batch_execute("create table c (id int, v text)").await.unwrap();
    let mut sink = pin!(client.copy_in("copy c from stdin").await.unwrap());
    let line = "x".repeat(997);
    for n in 0..20_000 {
        sink.feed(bytes::Bytes::from(format!("{n}\t{line}\n"))).await.unwrap();
    }
    assert_eq!(sink.finish().await.unwrap(), 20_000);
    let out = client.copy_out("copy c to stdout").await.unwrap();
    let bytes: usize = out.map_ok(|chunk| chunk.len()).try_fold(0, async |sum, n| Ok(sum + n)).await.unwrap();
    assert!(bytes > 20_000 * 998, "{bytes}");
    // A COPY that the server refuses in the middle, and one that the client gives up.
    let mut sink = pin!(client.copy_in("copy c from stdin").await.unwrap());
    let sent = sink.send(bytes::Bytes::from_static(b"not a number\tx\n")).await;
    assert!(sent.is_err() || sink.finish().await.is_err());
    {
        let _abandoned = pin!(client.copy_in::<_, bytes::Bytes>("copy c from stdin").await.unwrap());
    }
    assert_eq!(value(&client, "select count(*) from c").await, "20000");
}

async fn large_values(world: &World) {
    let client = world.client().await;
    let text = "y".repeat(40_000_000);
    let row = client.query_one("select length($1::text), $1::text", &[&text]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 40_000_000);
    assert!(row.get::<_, &str>(1) == text);
}

async fn notices_and_notifications(world: &World) {
    let (client, mut connection) = world.client_config().connect(NoTls).await.unwrap();
    let (sender, mut messages) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if sender.send(message.unwrap()).await.is_err() {
                return;
            }
        }
    });
    client.batch_execute("do $$begin raise notice 'psst'; end$$; listen room").await.unwrap();
    let AsyncMessage::Notice(notice) = messages.recv().await.unwrap() else { panic!("no notice") };
    assert_eq!(notice.message(), "psst");
    world.client().await.batch_execute("notify room, 'hello'").await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(5), messages.recv()).await.unwrap().unwrap();
    let AsyncMessage::Notification(notification) = next else { panic!("no notification") };
    assert_eq!((notification.channel(), notification.payload()), ("room", "hello"));
}

async fn startup_is_passed(world: &World) {
    let mut config = world.client_config();
    config.application_name("billing").options("-c work_mem=3MB");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(value(&client, "show application_name").await, "billing");
    assert_eq!(value(&client, "show work_mem").await, "3MB");
    let row = world.rows("SHOW SESSIONS").await.into_iter().find(|row| row["application_name"] == "billing");
    assert_eq!(row.unwrap()["route"], "blue");
    let mut config = world.client_config();
    config.dbname("no_such_database");
    let error = config.connect(NoTls).await.err().unwrap();
    assert_eq!(error.code(), Some(&SqlState::UNDEFINED_DATABASE), "the server's own refusal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_request_reaches_the_server_that_runs_the_query() {
    let world = World::new("").await;
    let client = world.client().await;
    for (side, epoch) in [("blue", 0), ("green", 1), ("blue", 2)] {
        if epoch > 0 {
            world.switch(side, epoch).await;
        }
        assert_eq!(value(&client, "select who()").await, side);
        let cancel = client.cancel_token();
        let sleeping = client.simple_query("select pg_sleep(20)");
        let cancelling = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cancel.cancel_query(NoTls).await.unwrap();
        };
        let (slept, ()) = tokio::time::timeout(Duration::from_secs(5), async {
            futures::future::join(sleeping, cancelling).await
        })
        .await
        .expect("the cancel was lost");
        assert_eq!(slept.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED), "{side}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_server_is_the_servers_own_word() {
    let world = World::new("").await;
    let client = world.client().await;
    let running = client.simple_query("select pg_sleep(20)");
    let ending = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.blue.sql("select pg_terminate_backend(pid) from pg_stat_activity where query like '%sleep(20)' and pid <> pg_backend_pid()").await.unwrap();
    };
    let (ran, ()) = futures::future::join(running, ending).await;
    assert_eq!(ran.unwrap_err().code(), Some(&SqlState::ADMIN_SHUTDOWN));
    let client = world.client().await;
    assert_eq!(value(&client, "select 1").await, "1");
    world.blue.kill9().unwrap();
    assert!(client.simple_query("select 1").await.is_err());
    // A client is told of the end before its session is counted as ended.
    wait_until("both to be counted", Duration::from_secs(5), async || {
        let stats = world.command("SHOW STATS").await;
        let counted = (stats["clients"].as_str(), stats["upstream_lost"].as_str()) == ("0", "2");
        if counted { Ok(Some(())) } else { Err(format!("{stats:?}")) }
    })
    .await
    .unwrap();
}
