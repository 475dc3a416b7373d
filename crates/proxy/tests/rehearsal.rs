//! A second upstream rehearses what its session is used to say: nothing may come of it but warm caches.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::time::{Duration, Instant};

use pgteal_testkit::wait_until;
use tokio_postgres::Client;
use world::{World, value};

/// Everything that could show that something ran: rows, a trigger's trace, and a sequence, which no rollback puts back.
const SCHEMA: &str = "\
    create sequence calls; create table trace (what text); \
    create table t (id serial primary key, v int); \
    create function leave_trace() returns trigger language plpgsql as \
    $$begin perform nextval('calls'); insert into trace values (tg_op); return null; end$$; \
    create trigger traced after insert or update or delete on t for each statement execute function leave_trace(); \
    create function effect(int) returns int language plpgsql volatile as \
    $$begin perform nextval('calls'); insert into trace values ('called'); return $1; end$$;";

/// What a session on green said last to its server, as the server sees it.
async fn last_on_green(world: &World) -> Vec<String> {
    let sql = "select query from pg_stat_activity where application_name = 'app' order by query";
    world.green.sql(sql).await.unwrap().lines().map(str::to_owned).collect()
}

async fn app(world: &World) -> Client {
    let mut config = world.client_config();
    let (client, connection) = config.application_name("app").connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn warmed(world: &World) {
    let warm = world.command("WARM green EPOCH 1").await;
    assert_eq!((warm["warm"].as_str(), warm["failed"].as_str()), ("1", "0"), "{warm:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_executed() {
    let world = World::new(SCHEMA).await;
    let client = app(&world).await;
    let prepared = client.prepare("insert into t (v) select effect($1::int) returning id").await.unwrap();
    client.query(&prepared, &[&5]).await.unwrap();
    for said in [
        "insert into t (v) values (1)",
        "insert into t (v) values (2) returning id",
        "update t set v = effect(v) where v = effect(2)",
        "delete from t where v = effect(7)",
        "select nextval('calls')",
        "with gone as (delete from t returning id) select count(*), effect(1) from gone",
        "values (effect(1))",
        "select v, effect(v) from t where v = effect(3) for update",
    ] {
        client.simple_query(said).await.unwrap();
    }
    let ran = "select last_value > 5, (select count(*) > 5 from trace) from calls";
    assert_eq!(world.blue.sql(ran).await.unwrap(), "t|t", "on blue all of it ran");
    warmed(&world).await;
    // The prepared statement's text comes last, in whatever form: what matters is that there were rehearsals.
    assert_eq!(last_on_green(&world).await, ["insert into t (v) select effect($1::int) returning id"]);
    let untouched = "select (select is_called from calls), (select is_called from t_id_seq), \
                     (select count(*) from t), (select count(*) from trace), \
                     (select count(*) from pg_locks where locktype = 'relation' and pid in \
                     (select pid from pg_stat_activity where application_name = 'app'))";
    assert_eq!(world.green.sql(untouched).await.unwrap(), "f|f|0|0|0");
    // A text that is new after the warming is rehearsed as well, while nobody is held.
    wait_until("a new text to be rehearsed", Duration::from_secs(5), async || {
        client.simple_query("select v + 1 from t").await.unwrap();
        let last = last_on_green(&world).await;
        if last == ["select v + 1 from t"] { Ok(()) } else { Err(format!("{last:?}")) }
    })
    .await
    .unwrap();
    assert_eq!(world.green.sql(untouched).await.unwrap(), "f|f|0|0|0");
    assert_eq!(world.switch("green", 1).await["moved"], "1");
    assert_eq!(client.query_one(&prepared, &[&5]).await.unwrap().get::<_, i32>(0), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_table_keeps_nobody_waiting() {
    let world = World::new("create table t (id int); create table u (id int)").await;
    let client = app(&world).await;
    client.simple_query("select id from u").await.unwrap();
    client.simple_query("insert into t values (1)").await.unwrap();
    let locker = world.green.connect("postgres").await.unwrap();
    locker.batch_execute("begin; lock table t in access exclusive mode").await.unwrap();
    let began = Instant::now();
    warmed(&world).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let waiting = "select count(*) from pg_locks where not granted";
    assert_eq!(world.green.sql(waiting).await.unwrap(), "0", "it does not wait on");
    let held = "select count(*) from pg_locks l join pg_stat_activity a using (pid) \
                where a.application_name = 'app' and l.locktype = 'relation'";
    assert_eq!(world.green.sql(held).await.unwrap(), "0");
    locker.batch_execute("rollback").await.unwrap();
    assert_eq!(world.switch("green", 1).await["moved"], "1");
    client.simple_query("insert into t values (2)").await.unwrap();
    assert_eq!(world.green.sql("select count(*) from t").await.unwrap(), "1");
    assert_eq!(world.command("SHOW STATS").await["upstream_lost"], "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_that_fails_means_nothing() {
    let world = World::new("create table t (id int); analyze t").await;
    world.blue.sql("create table only_blue (id int)").await.unwrap();
    world.green.sql("insert into t select generate_series(1, 100); analyze t").await.unwrap();
    // Planning may call a stable function; this one ends its own server process, on green.
    for (server, body) in
        [(&world.blue, "perform 1"), (&world.green, "perform pg_terminate_backend(pg_backend_pid())")]
    {
        let sql = format!(
            "create function fatal() returns int language plpgsql stable as $$begin {body}; return 1; end$$"
        );
        server.sql(&sql).await.unwrap();
    }
    let client = app(&world).await;
    client.batch_execute("set work_mem = '9MB'").await.unwrap();
    client.simple_query("select id from only_blue").await.unwrap();
    warmed(&world).await;
    client.simple_query("select count(*) from t where id < fatal()").await.unwrap();
    world.command("COOL EPOCH 1").await;
    warmed(&world).await;
    assert!(
        world.green.log().contains("terminating connection due to administrator command"),
        "it was rehearsed"
    );
    assert_eq!(world.switch("green", 1).await["moved"], "1");
    assert_eq!(value(&client, "select who()").await, "green");
    assert_eq!(value(&client, "show work_mem").await, "9MB");
    assert!(client.simple_query("select id from only_blue").await.is_err());
    assert_eq!(world.command("SHOW STATS").await["upstream_lost"], "0");
}
