//! What the console shows is what servers and clients know.

use std::collections::BTreeMap;
use std::time::Duration;

use pgteal_testkit::{Cluster, wait_until};
use tokio_postgres::{Client, NoTls};

use crate::world::{Row, World, value};

const BOUND: Duration = Duration::from_secs(20);

async fn app(world: &World) -> Client {
    let mut config = world.client_config();
    let (client, connection) = config.user("app").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    // Who is answered is a session.
    value(&client, "select 1").await;
    client
}

/// What a server says of the proxy's connections: pids with their states, by the role that only clients of the proxy use.
async fn known(cluster: &Cluster) -> BTreeMap<String, String> {
    let sql = "select pid, state from pg_stat_activity where usename = 'app'";
    let rows = cluster.sql(sql).await.unwrap();
    rows.lines()
        .filter_map(|row| row.split_once('|'))
        .map(|(pid, state)| (pid.into(), state.into()))
        .collect()
}

async fn upstreams(world: &World, side: &str) -> BTreeMap<String, Row> {
    let rows = world.rows("SHOW UPSTREAMS").await;
    let on_side = rows.into_iter().filter(|row| row["side"] == side);
    on_side.map(|row| (row["remote_pid"].clone(), row)).collect()
}

fn states(rows: &BTreeMap<String, Row>) -> BTreeMap<String, String> {
    rows.iter().map(|(pid, row)| (pid.clone(), row["state"].clone())).collect()
}

async fn route(world: &World, side: &str, columns: [&str; 5]) -> [String; 5] {
    let rows = world.rows("SHOW ROUTES").await;
    let row = rows.into_iter().find(|row| row["side"] == side).unwrap();
    columns.map(|column| row[column].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstreams_are_what_the_servers_know() {
    const COLUMNS: [&str; 5] = ["active", "sessions", "busy", "ahead", "left"];
    let world = World::new("create role app login").await;
    let clients = [app(&world).await, app(&world).await, app(&world).await];
    clients[0].batch_execute("begin; select 1").await.unwrap();
    let on_blue = upstreams(&world, "blue").await;
    let as_known = |state: &str| if state == "active" { "idle in transaction" } else { "idle" }.to_owned();
    let shown = states(&on_blue).iter().map(|(pid, state)| (pid.clone(), as_known(state))).collect();
    assert_eq!(known(&world.blue).await, shown, "{on_blue:?}");
    for client in &clients {
        let row = &on_blue[&value(client, "select pg_backend_pid()").await];
        assert_eq!((row["user"].as_str(), row["database"].as_str()), ("app", "postgres"));
        assert_eq!((row["port"].clone(), row["tls"].as_str()), (world.blue.port().to_string(), "no"));
    }
    let sessions: Vec<String> =
        world.rows("SHOW SESSIONS").await.iter().map(|row| row["id"].clone()).collect();
    let mut of: Vec<String> = on_blue.values().map(|row| row["session"].clone()).collect();
    of.sort_by_key(|id| id.parse::<u64>().unwrap());
    assert_eq!(of, sessions);
    assert_eq!(route(&world, "blue", COLUMNS).await, ["yes", "3", "1", "0", "0"]);
    assert_eq!(route(&world, "green", COLUMNS).await, ["no", "0", "0", "0", "0"]);

    clients[0].batch_execute("commit").await.unwrap();
    let warm = world.command("WARM green EPOCH 1 LIMIT 20000").await;
    assert_eq!(warm["warm"], "3", "{warm:?}");
    let ahead = upstreams(&world, "green").await;
    assert_eq!(known(&world.green).await.keys().collect::<Vec<_>>(), ahead.keys().collect::<Vec<_>>());
    assert!(ahead.values().all(|row| row["state"] == "ahead"), "{ahead:?}");
    assert_eq!(route(&world, "green", COLUMNS).await, ["no", "0", "0", "3", "0"]);

    world.command("HOLD EPOCH 1 LIMIT 20000").await;
    world.command("DRAIN EPOCH 1 BUDGET 5000").await;
    world.command("SETTLE EPOCH 1 LIMIT 5000").await;
    world.command("REPOINT green EPOCH 1").await;
    assert_eq!(route(&world, "green", COLUMNS).await, ["yes", "3", "0", "0", "0"]);
    assert_eq!(
        route(&world, "blue", COLUMNS).await,
        ["no", "0", "0", "0", "3"],
        "nobody is closed in a hold"
    );
    let left = upstreams(&world, "blue").await;
    assert!(left.values().all(|row| row["state"] == "left"), "{left:?}");
    assert_eq!(left.keys().collect::<Vec<_>>(), on_blue.keys().collect::<Vec<_>>());
    world.command("RELEASE EPOCH 1").await;
    for client in &clients {
        let pid = value(client, "select pg_backend_pid()").await;
        assert_eq!(upstreams(&world, "green").await[&pid]["state"], "idle");
    }
    let gone = async || {
        let (shown, known) = (upstreams(&world, "blue").await.len(), known(&world.blue).await.len());
        if (shown, known) == (0, 0) { Ok(()) } else { Err(format!("{shown} shown, {known} known")) }
    };
    wait_until("the connections that were left are closed, on both lists", BOUND, gone).await.unwrap();
    drop(clients);
    let gone = async || {
        let shown = upstreams(&world, "green").await;
        if shown.is_empty() { Ok(()) } else { Err(format!("{shown:?}")) }
    };
    wait_until("nobody is on the roll when nobody is there", BOUND, gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_held_is_shown_and_who_works_is_not() {
    let world = World::new("create role app login").await;
    let (busy, waits, idle) = (app(&world).await, app(&world).await, app(&world).await);
    waits.simple_query("set application_name = 'renamed'").await.unwrap();
    busy.batch_execute("begin; select 1").await.unwrap();
    assert_eq!(world.rows("SHOW HELD").await, Vec::<Row>::new());
    world.command("HOLD EPOCH 1 LIMIT 60000").await;
    let statement = "select 'a statement that waits'";
    let held = tokio::spawn(async move { (value(&waits, statement).await, waits) });
    let login = tokio::spawn({
        let mut config = world.client_config();
        config.user("app").application_name("late");
        async move { config.connect(NoTls).await }
    });
    let both = async || {
        let rows = world.rows("SHOW HELD").await;
        if rows.len() == 2 { Ok(rows) } else { Err(format!("{rows:?}")) }
    };
    let rows = wait_until("a statement and a login are held", BOUND, both).await.unwrap();
    let columns = ["kind", "user", "database", "application_name", "bytes"];
    let seen: Vec<[&str; 5]> = rows.iter().map(|row| columns.map(|column| row[column].as_str())).collect();
    // A Query message: a tag, a length of four bytes, the text and a zero byte.
    let bytes = (statement.len() + 6).to_string();
    assert_eq!(
        seen,
        [["statement", "app", "postgres", "renamed", &bytes], ["login", "app", "postgres", "late", "0"]]
    );
    assert!(rows.iter().all(|row| row["client_addr"].starts_with("127.0.0.1:")));
    let waited = |rows: &[Row]| rows[0]["wait_ms"].parse::<u64>().unwrap();
    let longer = async || {
        let now = world.rows("SHOW HELD").await;
        if waited(&now) > waited(&rows) { Ok(()) } else { Err(format!("{now:?}")) }
    };
    wait_until("the wait grows", BOUND, longer).await.unwrap();
    busy.batch_execute("select 1; commit").await.unwrap();
    world.command("RELEASE EPOCH 1").await;
    assert_eq!(held.await.unwrap().0, "a statement that waits");
    let (late, connection) = login.await.unwrap().unwrap();
    tokio::spawn(connection);
    assert_eq!(value(&late, "select who()").await, "blue");
    assert_eq!(world.rows("SHOW HELD").await, Vec::<Row>::new());
    drop((idle, late));
}
