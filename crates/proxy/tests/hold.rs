//! The gate and the console on real servers: who is held, who is ended and why, who may drive, how a hold ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::time::{Duration, Instant};

use pgteal_proxy::Proxy;
use pgteal_testkit::wait_until;
use tokio_postgres::error::SqlState;
use world::{World, console, value};

const STALE: &str = "55000";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_carried_is_named_and_ended() {
    let world = World::new(
        "create table t (id int); create procedure make_temp() language plpgsql as \
        $$begin create temp table hidden (); end$$;",
    )
    .await;
    let cases = [
        ("create temp table scratch (id int)", "a temporary table (scratch)"),
        ("call make_temp()", "a temporary table (hidden)"),
        ("select 1 into temp into_temp", "a temporary table (into_temp)"),
        ("create function pg_temp.f() returns int language sql as 'select 1'", "a temporary function (f)"),
        ("begin; declare c cursor with hold for select 1; commit", "a cursor WITH HOLD (c)"),
    ];
    let mut clients = Vec::new();
    for (sql, _) in cases {
        let client = world.client().await;
        client.simple_query(sql).await.unwrap();
        clients.push(client);
    }
    // Those who no longer have it can move again, or never could not.
    let freed = [
        "listen room",
        "select pg_advisory_lock(42)",
        "create temp table gone (); drop table gone",
        "select pg_advisory_lock(7); select pg_advisory_unlock(7)",
        "listen room; create temp table gone (); discard all",
        "begin; select pg_advisory_xact_lock(9); create temp table gone () on commit drop; commit",
    ];
    let mut free = Vec::new();
    for sql in freed {
        let client = world.client().await;
        for part in sql.split("; ") {
            client.simple_query(part).await.unwrap();
        }
        free.push(client);
    }
    let warm = world.command("WARM green EPOCH 1").await;
    assert_eq!(
        (warm["warm"].as_str(), warm["pinned"].as_str(), warm["failed"].as_str()),
        ("6", "5", "0"),
        "{warm:?}"
    );
    let late = world.client().await;
    wait_until("the late session to be warmed", Duration::from_secs(5), async || {
        let state = world.command("SHOW STATE").await;
        if state["warm"] == "7" { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await
    .unwrap();
    late.batch_execute("create temp table made_after_warm ()").await.unwrap();
    let sessions = world.rows("SHOW SESSIONS").await;
    for (_, reason) in cases {
        assert!(
            sessions.iter().any(|row| row["class"] == "pinned" && row["reason"] == reason),
            "{reason} in {sessions:#?}"
        );
    }
    world.command("HOLD EPOCH 1 LIMIT 10000").await;
    assert_eq!(world.command("DRAIN EPOCH 1 BUDGET 1000").await["busy"], "0");
    let settled = world.command("SETTLE EPOCH 1 LIMIT 2000").await;
    assert_eq!(settled["stale"], "0", "{settled:?}");
    let repointed = world.command("REPOINT green EPOCH 1").await;
    assert_eq!((repointed["moved"].as_str(), repointed["ended"].as_str()), ("6", "6"), "{repointed:?}");
    world.command("RELEASE EPOCH 1").await;
    for client in &free {
        assert_eq!(value(client, "select who()").await, "green");
    }
    for client in clients.iter().chain([&late]) {
        assert!(client.simple_query("select 1").await.is_err());
    }
    assert_eq!(world.command("SHOW STATS").await["ended_57p01"], "6");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_session_is_told_why() {
    let world = World::new("").await;
    let client = world.client().await;
    client.batch_execute("create temp table t ()").await.unwrap();
    world.command("WARM green EPOCH 1").await;
    world.command("HOLD EPOCH 1 LIMIT 10000").await;
    let waiting = client.simple_query("select who()");
    let turning = async {
        wait_until("the query to be held", Duration::from_secs(5), async || {
            let state = world.command("SHOW STATE").await;
            if state["held"] == "1" { Ok(()) } else { Err(format!("{state:?}")) }
        })
        .await
        .unwrap();
        world.command("REPOINT green EPOCH 1").await;
    };
    let (told, ()) = futures::future::join(waiting, turning).await;
    let error = told.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN));
    assert_eq!(
        error.as_db_error().unwrap().message(),
        "terminating connection: this session holds a temporary table (t), which cannot be carried to the new server"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_end_before_the_hold_bites_and_new_ones_wait() {
    let world = World::new("create table t (id int)").await;
    let (inside, idle) = (world.client().await, world.client().await);
    inside.batch_execute("begin; insert into t values (1)").await.unwrap();
    let held = world.command("HOLD EPOCH 3 LIMIT 10000 RUN 'r1'").await;
    assert_eq!((held["busy"].as_str(), held["held"].as_str()), ("1", "1"));
    let state = world.command("SHOW STATE").await;
    assert_eq!(
        (state["state"].as_str(), state["run"].as_str(), state["epoch"].as_str()),
        ("held", "r1", "3")
    );
    inside.batch_execute("insert into t values (2)").await.unwrap();
    assert_eq!(world.command("DRAIN EPOCH 3 BUDGET 50").await["busy"], "1");
    assert_eq!(
        world.refused("REPOINT green EPOCH 3").await,
        (STALE.into(), "1 sessions are inside a transaction".into())
    );
    // A client that pipelines COMMIT and its next transaction is stopped between the two.
    let next = inside.prepare("select 1");
    let held_query = async {
        inside.batch_execute("commit").await.unwrap();
        next.await.unwrap();
    };
    let waiting = futures::future::join3(held_query, idle.simple_query("select who()"), world.client());
    tokio::pin!(waiting);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err(),
        "somebody slipped through"
    );
    assert_eq!(world.command("DRAIN EPOCH 3 BUDGET 1000").await["busy"], "0");
    assert_eq!(world.blue.sql("select count(*) from t").await.unwrap(), "2");
    let state = world.command("SHOW STATE").await;
    assert_eq!((state["busy"].as_str(), state["held"].as_str(), state["clients"].as_str()), ("0", "2", "2"));
    let released = world.command("RELEASE EPOCH 3").await;
    assert_eq!(released["released"], "2");
    let ((), answered, _late) =
        tokio::time::timeout(Duration::from_secs(5), waiting).await.expect("still held");
    answered.unwrap();
    let stats = world.command("SHOW STATS").await;
    assert!(stats["longest_stall_us"].parse::<u64>().unwrap() > 250_000, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_after_the_budget_is_terminated_and_aborted() {
    let world = World::new("create table t (id int)").await;
    let (open, running) = (world.client().await, world.client().await);
    open.batch_execute("begin; insert into t values (1)").await.unwrap();
    let query = running.simple_query("insert into t select 2 from pg_sleep(60)");
    let driving = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.command("HOLD EPOCH 1 LIMIT 10000").await;
        let began = Instant::now();
        let drained = world.command("DRAIN EPOCH 1 BUDGET 300 TERMINATE").await;
        assert_eq!((drained["busy"].as_str(), drained["terminated"].as_str()), ("0", "2"), "{drained:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "{drained:?}");
        let left = world.blue.sql("select count(*) from pg_stat_activity where xact_start is not null and pid <> pg_backend_pid() and backend_type = 'client backend'").await;
        assert_eq!(left.unwrap(), "0", "the servers have let go");
    };
    let (told, ()) = futures::future::join(query, driving).await;
    assert_eq!(told.unwrap_err().code(), Some(&SqlState::ADMIN_SHUTDOWN));
    assert!(open.simple_query("commit").await.is_err());
    assert_eq!(world.blue.sql("select count(*) from t").await.unwrap(), "0");
    world.command("RELEASE EPOCH 1").await;
    assert_eq!(value(&world.client().await, "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_highest_epoch_drives() {
    let world = World::new("").await;
    world.command("HOLD EPOCH 5 LIMIT 10000").await;
    let stale = "stale epoch 3: epoch 5 drives this proxy".to_owned();
    for command in [
        "WARM green EPOCH 3",
        "COOL EPOCH 3",
        "HOLD EPOCH 3 LIMIT 100",
        "DRAIN EPOCH 3 BUDGET 100 TERMINATE",
        "SETTLE EPOCH 3 LIMIT 100",
        "REPOINT green EPOCH 3",
        "RELEASE EPOCH 3",
    ] {
        assert_eq!(world.refused(command).await, (STALE.into(), stale.clone()), "{command}");
    }
    let state = world.command("SHOW STATE").await;
    assert_eq!(
        (state["state"].as_str(), state["route"].as_str(), state["epoch"].as_str()),
        ("held", "blue", "5")
    );
    // The same epoch may repeat itself, a higher one may take over.
    world.command("HOLD EPOCH 5 LIMIT 10000").await;
    world.command("REPOINT green EPOCH 5").await;
    let again = world.command("REPOINT green EPOCH 5").await;
    assert_eq!(again["ended"], "0");
    world.command("RELEASE EPOCH 6").await;
    world.command("RELEASE EPOCH 6").await;
    assert_eq!(world.refused("REPOINT blue EPOCH 6").await.0, STALE);
    let (code, _) = world.refused("HOLD EPOCH 6 LIMIT 0").await;
    assert_eq!(code, "22023");
    assert_eq!(world.refused("HOLD").await.0, "42601");
    // Drivers that cannot do without the extended protocol get a clean error and keep their connection.
    let error = world.console.query("SHOW STATE", &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED));
    assert_eq!(world.command("SHOW STATE").await["route"], "green");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_without_a_driver_ends_by_its_limit() {
    let world = World::new("").await;
    let client = world.client().await;
    world.command("HOLD EPOCH 1 LIMIT 400").await;
    let began = Instant::now();
    assert_eq!(value(&client, "select who()").await, "blue");
    let took = began.elapsed();
    assert!(took > Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
    let state = world.command("SHOW STATE").await;
    assert_eq!((state["state"].as_str(), state["last_release_reason"].as_str()), ("flowing", "limit"));
    assert_eq!(world.refused("REPOINT green EPOCH 1").await.0, STALE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_starts_again_finds_its_route_and_epoch_and_is_open() {
    let mut world = World::new("").await;
    world.switch("green", 4).await;
    world.command("HOLD EPOCH 5 LIMIT 60000").await;
    wait_until("the epoch to be written", Duration::from_secs(5), async || {
        let text = std::fs::read_to_string(world.dir.path().join("state.json")).unwrap();
        if text.contains("\"epoch\":5") { Ok(()) } else { Err(text) }
    })
    .await
    .unwrap();
    // As a kill would: everything stops at once, nothing is said to anybody.
    drop(world.proxy.take());
    let config = world::config(world.dir.path(), &world.blue, &world.green, "");
    let proxy = Proxy::start(config).await.unwrap();
    world.console = console(proxy.socket().unwrap()).await;
    world.proxy = Some(proxy);
    let state = world.command("SHOW STATE").await;
    assert_eq!(
        (state["state"].as_str(), state["route"].as_str(), state["epoch"].as_str()),
        ("flowing", "green", "5")
    );
    assert_eq!(value(&world.client().await, "select who()").await, "green");
    assert_eq!(world.refused("HOLD EPOCH 4 LIMIT 100").await.0, STALE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_never_warmed_still_goes_to_the_right_side() {
    let world = World::new("").await;
    let client = world.client().await;
    client.batch_execute("set work_mem = '9MB'").await.unwrap();
    let statement = client.prepare("select who()").await.unwrap();
    world.command("HOLD EPOCH 1 LIMIT 10000").await;
    let repointed = world.command("REPOINT green EPOCH 1").await;
    assert_eq!((repointed["moved"].as_str(), repointed["cold"].as_str()), ("0", "1"), "{repointed:?}");
    world.command("RELEASE EPOCH 1").await;
    assert_eq!(client.query_one(&statement, &[]).await.unwrap().get::<_, String>(0), "green");
    assert_eq!(value(&client, "show work_mem").await, "9MB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_side_that_cannot_be_reached_fails_the_warming_and_nobody() {
    let world = World::new("").await;
    let client = world.client().await;
    world.green.stop_fast().await.unwrap();
    let warm = world.command("WARM green EPOCH 1 LIMIT 5000").await;
    assert_eq!((warm["warm"].as_str(), warm["failed"].as_str()), ("0", "1"), "{warm:?}");
    assert!(warm["failed_reason"].contains("cannot connect"), "{warm:?}");
    assert_eq!(value(&client, "select who()").await, "blue");
    world.green.start().await.unwrap();
    let warm = world.command("WARM green EPOCH 1 LIMIT 5000").await;
    assert_eq!((warm["warm"].as_str(), warm["failed"].as_str()), ("1", "0"), "{warm:?}");
    // Green dies after the warming: the session is opened again, or, if that fails, ended by 57P01 and not misled.
    world.green.kill9().unwrap();
    world.command("HOLD EPOCH 1 LIMIT 10000").await;
    world.command("REPOINT green EPOCH 1").await;
    world.command("RELEASE EPOCH 1").await;
    assert!(client.simple_query("select who()").await.is_err());
    world.green.start().await.unwrap();
    assert_eq!(value(&world.client().await, "select who()").await, "green");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fence_default_does_not_stick_to_warmed_sessions() {
    let world = World::new("create table t (id int)").await;
    world.green.sql("alter database postgres set default_transaction_read_only = on").await.unwrap();
    let client = world.client().await;
    world.command("WARM green EPOCH 1").await;
    world.command("HOLD EPOCH 1 LIMIT 10000").await;
    world
        .green
        .sql("begin read write; alter database postgres reset default_transaction_read_only; commit")
        .await
        .unwrap();
    world.command("REPOINT green EPOCH 1").await;
    world.command("RELEASE EPOCH 1").await;
    client.batch_execute("insert into t values (1)").await.unwrap();
    assert_eq!(world.green.sql("select count(*) from t").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_old_statements_do_late_is_seen() {
    let world = World::new("").await;
    let (locker, setter, sql, local) =
        (world.client().await, world.client().await, world.client().await, world.client().await);
    let lock = locker.prepare("select pg_advisory_lock($1::int8)").await.unwrap();
    let set = setter.prepare("select set_config($1, $2, false)").await.unwrap();
    sql.batch_execute("prepare p(text) as select set_config('my.own', $1, false)").await.unwrap();
    let warm = world.command("WARM green EPOCH 1").await;
    assert_eq!((warm["warm"].as_str(), warm["pinned"].as_str()), ("4", "0"), "{warm:?}");
    // Prepared before the sessions were looked at, executed after.
    locker.query(&lock, &[&5i64]).await.unwrap();
    setter.query(&set, &[&"app.tenant", &"seven"]).await.unwrap();
    sql.batch_execute("execute p('late')").await.unwrap();
    local.batch_execute("begin").await.unwrap();
    local.batch_execute("set local work_mem = '9MB'").await.unwrap();
    local.batch_execute("commit").await.unwrap();
    let sessions = world.rows("SHOW SESSIONS").await;
    assert_eq!(sessions[3]["warm"], "ready", "SET LOCAL leaves nothing: {sessions:?}");
    world.command("HOLD EPOCH 1 LIMIT 9999").await;
    assert_eq!(world.command("SETTLE EPOCH 1 LIMIT 999").await["stale"], "0");
    let repointed = world.command("REPOINT green EPOCH 1").await;
    assert_eq!((repointed["moved"].as_str(), repointed["ended"].as_str()), ("4", "0"), "{repointed:?}");
    world.command("RELEASE EPOCH 1").await;
    assert_eq!(value(&locker, "select pg_advisory_unlock(5)").await, "t");
    assert_eq!(value(&setter, "show app.tenant").await, "seven");
    assert_eq!(value(&sql, "show my.own").await, "late");
    assert_eq!(value(&local, "show work_mem").await, "4MB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_its_server_does_not_answer_keeps_nobody_from_draining() {
    let world = World::new("").await;
    world.blue.freeze().unwrap();
    let config = world.client_config();
    let comes = tokio::spawn(async move { config.connect(tokio_postgres::NoTls).await });
    pgteal_testkit::wait_until("the login to be inside", Duration::from_secs(5), async || {
        let state = world.command("SHOW STATE").await;
        if state["busy"] == "1" { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await
    .unwrap();
    world.command("HOLD EPOCH 1 LIMIT 20000").await;
    let drained = world.command("DRAIN EPOCH 1 BUDGET 5000").await;
    assert_eq!(drained["busy"], "0", "{drained:?}");
    world.command("REPOINT green EPOCH 1").await;
    world.command("RELEASE EPOCH 1").await;
    let (client, connection) = comes.await.unwrap().unwrap();
    tokio::spawn(connection);
    assert_eq!(value(&client, "select who()").await, "green");
    world.blue.thaw();
}
