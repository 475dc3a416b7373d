//! What functions do to a session is seen, wherever they are called from, before the first move and before the next one;
//! and who only says what does nothing is not asked about it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::time::Duration;

use pgteal_testkit::{Cluster, wait_until};
use tokio_postgres::{Client, NoTls};
use world::{World, value};

const SCHEMA: &str = "\
    create function set_tenant(int) returns int language plpgsql as \
    $$begin perform set_config('app.tenant', $1::text, false); return $1; end$$; \
    create function enter(int) returns int language sql as 'select set_tenant($1)'; \
    create function become(int) returns int language plpgsql as \
    $$begin execute 'set app.tenant = ' || $1; set work_mem = '9MB'; return $1; end$$; \
    create function by_name(text, text) returns text language sql as \
    $$select set_config('app.' || $1, $2, false)$$; \
    create function enter_here(int) returns void language plpgsql as \
    $$begin perform set_config('app.tenant', $1::text, true); set local work_mem = '6MB'; end$$; \
    create function visible(int) returns bool language sql stable as \
    $$select $1::text = current_setting('app.tenant', true)$$; \
    create function make_temp() returns void language plpgsql as 'begin create temp table hidden (); end'; \
    create function opens() returns void language plpgsql as \
    $$begin execute 'declare c cursor with hold for select 1'; end$$; \
    create function touched() returns trigger language plpgsql as 'begin perform enter(new.id); return null; end'; \
    create function counts() returns trigger language plpgsql as \
    $$begin update counters set n = n + 1; return null; end$$; \
    create table orders (id int) partition by list (id); \
    create table seven partition of orders for values in (7); \
    create table rest partition of orders default; \
    create trigger touched after insert on seven for each row execute function touched(); \
    create table counters (n int); \
    create table plain (id int default 1); \
    create trigger counts after insert on plain for each row execute function counts(); \
    create view entered as select enter(8) as id; \
    create table defaults (id int default enter(9));";

/// Statements that set `app.tenant`, each by another way, and what it is then.
const WAYS: [(&str, &str); 7] = [
    ("select set_tenant(1)", "1"),
    ("select public . \"enter\" (2)", "2"),
    ("select become(3)", "3"),
    ("select by_name('tenant', '4')", "4"),
    ("insert into orders values (7)", "7"),
    ("select id from entered", "8"),
    ("insert into defaults values (default)", "9"),
];

/// Functions that leave what cannot be carried, and its name.
const PINS: [(&str, &str); 2] =
    [("select make_temp()", "a temporary table (hidden)"), ("select opens()", "a cursor WITH HOLD (c)")];

const HARMLESS: [&str; 7] = [
    "begin; update plain set id = id + 1 where id = 5; insert into plain values (1); commit",
    "select count(*) from plain where visible(id)",
    "delete from plain where id = 3",
    "with gone as (delete from plain where id = 4 returning id) select id from gone",
    "begin; set local work_mem = '5MB'; commit",
    "begin; select set_config('app.tenant', '5', true); commit",
    "begin; select enter_here(5); commit",
];

/// What a session is shown to have done last that was looked at.
const LOOK: &str = "COMMIT /* pgteal looked";

async fn app(world: &World, name: &str, database: &str) -> Client {
    let mut config = world.client_config();
    config.application_name(name).dbname(database);
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn says(client: &Client, sql: &str) {
    for part in sql.split("; ") {
        client.simple_query(part).await.unwrap_or_else(|error| panic!("{part}: {error:?}"));
    }
}

/// What a session said last to its server, as the server sees it.
async fn last(server: &Cluster, name: &str) -> String {
    let sql = format!("select query from pg_stat_activity where application_name = '{name}'");
    server.sql(&sql).await.unwrap()
}

async fn tenants(clients: &[Client]) -> Vec<String> {
    let mut tenants = Vec::new();
    for client in clients {
        tenants.push(value(client, "select current_setting('app.tenant', true)").await);
    }
    tenants
}

/// The sessions whose names begin so are pinned, each for its reason.
async fn named(world: &World, prefix: &str) {
    let sessions = world.rows("SHOW SESSIONS").await;
    for (n, (sql, reason)) in PINS.iter().enumerate() {
        let name = format!("{prefix}{n}");
        let row = sessions.iter().find(|row| row["application_name"] == name).unwrap();
        assert_eq!((row["class"].as_str(), row["reason"].as_str()), ("pinned", *reason), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_functions_leave_is_carried_or_named_at_every_move() {
    let world = World::new(SCHEMA).await;
    let (mut first, mut set, mut later) = (Vec::new(), Vec::new(), Vec::new());
    for (n, (pin, _)) in PINS.iter().enumerate() {
        first.push(app(&world, &format!("first{n}"), "postgres").await);
        says(&first[n], pin).await;
        later.push(app(&world, &format!("later{n}"), "postgres").await);
        says(&later[n], "select 1").await;
    }
    for (n, (sql, _)) in WAYS.iter().enumerate() {
        set.push(app(&world, &format!("set{n}"), "postgres").await);
        says(&set[n], sql).await;
    }
    let expected: Vec<_> = WAYS.iter().map(|(_, tenant)| (*tenant).to_owned()).collect();
    assert_eq!(tenants(&set).await, expected);
    let warm = world.command("WARM green EPOCH 1").await;
    assert_eq!((warm["warm"].as_str(), warm["pinned"].as_str()), ("9", "2"), "{warm:?}");
    named(&world, "first").await;
    let repointed = world.switch("green", 1).await;
    assert_eq!((repointed["moved"].as_str(), repointed["ended"].as_str()), ("9", "2"), "{repointed:?}");
    assert_eq!(tenants(&set).await, expected);
    assert_eq!(value(&set[2], "show work_mem").await, "9MB");
    for client in &first {
        assert!(client.simple_query("select 1").await.is_err());
    }
    // Long after the last look, functions do the same to sessions that are known already.
    for (client, (pin, _)) in later.iter().zip(PINS) {
        says(client, pin).await;
    }
    set.rotate_left(1);
    for (client, (sql, _)) in set.iter().zip(WAYS) {
        says(client, sql).await;
    }
    let warm = world.command("WARM blue EPOCH 2").await;
    assert_eq!((warm["warm"].as_str(), warm["pinned"].as_str()), ("7", "2"), "{warm:?}");
    named(&world, "later").await;
    let repointed = world.switch("blue", 2).await;
    assert_eq!((repointed["moved"].as_str(), repointed["ended"].as_str()), ("7", "2"), "{repointed:?}");
    assert_eq!(tenants(&set).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_warming_and_hold_only_who_said_a_word_that_touches_is_asked() {
    let world = World::new(SCHEMA).await;
    for server in [&world.blue, &world.green] {
        // Its only session has the only connection that its role may have.
        server.sql("create role limited login connection limit 1").await.unwrap();
        server.sql("create database narrow").await.unwrap();
        let narrow = server.connect("narrow").await.unwrap();
        narrow
            .batch_execute(
                "create function set_tenant(int) returns text language sql as \
                 $$select set_config('app.tenant', $1::text, false)$$",
            )
            .await
            .unwrap();
        // Here a function is called without being named.
        server.sql("create database odd").await.unwrap();
        let odd = server.connect("odd").await.unwrap();
        odd.batch_execute(
            "create function lock_them(int, int) returns bool language sql as \
             $$select pg_try_advisory_lock($1, $2)$$; \
             create operator === (leftarg = int, rightarg = int, function = lock_them)",
        )
        .await
        .unwrap();
    }
    let (mut harmless, mut touching, mut pinned) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..HARMLESS.len() {
        harmless.push(app(&world, &format!("harmless{n}"), "postgres").await);
    }
    for n in 0..WAYS.len() {
        touching.push(app(&world, &format!("touching{n}"), "postgres").await);
    }
    for n in 0..PINS.len() {
        pinned.push(app(&world, &format!("pinned{n}"), "postgres").await);
    }
    let prepared = app(&world, "prepared", "postgres").await;
    let statement = prepared.prepare("select enter($1)").await.unwrap();
    let odd = app(&world, "odd", "odd").await;
    let mut config = world.client_config();
    let (limited, connection) = config.user("limited").dbname("narrow").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let warm = world.command("WARM green EPOCH 1").await;
    assert_eq!((warm["warm"].as_str(), warm["pinned"].as_str()), ("19", "0"), "{warm:?}");
    // A session that nobody looked at again would not be for its own patience.
    tokio::time::sleep(Duration::from_millis(350)).await;
    for (client, sql) in harmless.iter().zip(HARMLESS) {
        says(client, sql).await;
    }
    for (client, (sql, _)) in touching.iter().zip(WAYS).chain(pinned.iter().zip(PINS)) {
        says(client, sql).await;
    }
    prepared.query(&statement, &[&5]).await.unwrap();
    says(&odd, "select 6 === 7").await;
    says(&limited, "select set_tenant(6)").await;
    world.command("HOLD EPOCH 1 LIMIT 10000").await;
    assert_eq!(world.command("DRAIN EPOCH 1 BUDGET 1000").await["busy"], "0");
    assert_eq!(world.command("SETTLE EPOCH 1 LIMIT 5000").await["stale"], "0");
    named(&world, "pinned").await;
    for (n, sql) in HARMLESS.iter().enumerate() {
        let last = last(&world.blue, &format!("harmless{n}")).await;
        assert!(sql.ends_with(&last), "{sql}: {last}");
    }
    for (n, (sql, _)) in WAYS.iter().enumerate() {
        let last = last(&world.blue, &format!("touching{n}")).await;
        assert!(last.starts_with(LOOK), "{sql}: {last}");
    }
    let repointed = world.command("REPOINT green EPOCH 1").await;
    assert_eq!((repointed["moved"].as_str(), repointed["ended"].as_str()), ("17", "2"), "{repointed:?}");
    world.command("RELEASE EPOCH 1").await;
    assert_eq!(tenants(&touching).await, WAYS.map(|(_, tenant)| tenant.to_owned()));
    assert_eq!(tenants(&[prepared, limited]).await, ["5", "6"]);
    assert_eq!(value(&odd, "select pg_advisory_unlock(6, 7)").await, "t");
    wait_until("the connections that read functions to be closed", Duration::from_secs(5), async || {
        let sql = "select count(*) from pg_stat_activity where backend_type = 'client backend' \
                   and pid <> pg_backend_pid()";
        let left = world.blue.sql(sql).await.unwrap();
        if left == "0" { Ok(()) } else { Err(left) }
    })
    .await
    .unwrap();
}

/// More names than are asked for, in bodies that begin so.
const NAMES: &str =
    "select string_agg(format('k := %L;', 'PREFIX' || n), ' ') from generate_series(1, 1500) n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_called_functions_that_know_more_names_than_are_asked_for_is_named() {
    let world = World::new("").await;
    for server in [&world.blue, &world.green] {
        // In one database the names are of nothing that is there, in the other of functions.
        for (database, prefix) in [("crowded", "errors.e"), ("listed", "public.f")] {
            server.sql(&format!("create database {database}")).await.unwrap();
            let client = server.connect(database).await.unwrap();
            let names = NAMES.replace("PREFIX", prefix);
            client
                .batch_execute(&format!(
                    "do $do$ begin execute format($f$create function set_tenant(v text) returns text language plpgsql \
                     as 'declare k text; begin %s k := ''app.tenant''; return set_config(k, v, false); end'$f$, \
                     replace(({names}), '''', '''''')); end $do$; \
                     do $do$ begin for n in 1..case current_database() when 'listed' then 1500 else 0 end loop \
                     execute format('create function f%s() returns int language sql as ''select 1''', n); \
                     end loop; end $do$"
                ))
                .await
                .unwrap();
        }
    }
    let mut clients = Vec::new();
    for (name, database, sql) in [
        ("pinned", "crowded", "select set_tenant('1')"),
        ("silent", "crowded", ""),
        ("moved", "listed", "select set_tenant('3')"),
    ] {
        clients.push(app(&world, name, database).await);
        if !sql.is_empty() {
            says(clients.last().unwrap(), sql).await;
        }
    }
    let warm = world.command("WARM green EPOCH 1").await;
    assert_eq!((warm["warm"].as_str(), warm["pinned"].as_str()), ("2", "1"), "{warm:?}");
    let sessions = world.rows("SHOW SESSIONS").await;
    let row = sessions.iter().find(|row| row["application_name"] == "pinned").unwrap();
    let reason = "what functions set that know more than 1024 names of custom settings";
    assert_eq!((row["class"].as_str(), row["reason"].as_str()), ("pinned", reason));
    let repointed = world.switch("green", 1).await;
    assert_eq!((repointed["moved"].as_str(), repointed["ended"].as_str()), ("2", "1"), "{repointed:?}");
    assert!(clients[0].simple_query("select 1").await.is_err());
    assert_eq!(value(&clients[2], "select current_setting('app.tenant', true)").await, "3");
}
