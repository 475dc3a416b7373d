//! A password that is changed while its user's sessions run: they cannot log in anew without their clients, so they stay
//! behind alone; and what differs between the sides is told as such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use pgteal_proxy::{Config, Proxy};
use pgteal_testkit::Cluster;
use tokio_postgres::{Client, NoTls};
use world::{Row, World, console, value};

async fn server(major: u16, name: &str) -> Cluster {
    let builder = Cluster::builder(major).name(name);
    let hba = ["local all app scram-sha-256", "host all app all scram-sha-256"];
    hba.into_iter().fold(builder, |builder, line| builder.hba(line)).start().await.unwrap()
}

async fn world() -> World {
    let (blue, green) = tokio::join!(server(15, "blue"), server(18, "green"));
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "listen = [\"127.0.0.1:0\"]\nunix_dir = \"{dir}\"\nstate_file = \"{dir}/state.json\"\n\
         [blue]\nhost = \"{}\"\nport = {}\n[green]\nhost = \"{}\"\nport = {}\n\
         [auth]\nservice_user = \"postgres\"\ncache_ms = 0\n",
        blue.socket_dir().display(),
        blue.port(),
        green.socket_dir().display(),
        green.port(),
        dir = dir.path().display(),
    );
    let path = dir.path().join("proxy.toml");
    std::fs::write(&path, text).unwrap();
    let proxy = Proxy::start(Config::load(&path).unwrap()).await.unwrap();
    let console = console(proxy.socket().unwrap()).await;
    World { blue, green, proxy: Some(proxy), console, dir }
}

/// As `pgteal up` does: the verifier is carried as it is.
async fn carry(world: &World) {
    let stored = world.blue.sql("select rolpassword from pg_authid where rolname = 'app'").await.unwrap();
    world.green.sql(&format!("alter role app password '{}'", stored.trim())).await.unwrap();
}

async fn app(world: &World, password: &str) -> Client {
    let mut config = world.client_config();
    config.user("app").password(password);
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// How many are warm, pinned and failed.
fn counts(warm: &Row) -> [&str; 3] {
    ["warm", "pinned", "failed"].map(|column| warm[column].as_str())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_password_was_changed_stays_behind_alone() {
    let world = world().await;
    world.blue.sql("create role app login password 'old'").await.unwrap();
    world.green.sql("create role app login").await.unwrap();
    carry(&world).await;
    let old = app(&world, "old").await;
    world.blue.sql("alter role app password 'new'").await.unwrap();
    let new = app(&world, "new").await;
    // Not carried: that green differs is no fault of the session.
    let warm = world.command("WARM green EPOCH 1 LIMIT 20000").await;
    assert_eq!(counts(&warm), ["1", "0", "1"], "{warm:?}");
    world.command("COOL EPOCH 1").await;
    carry(&world).await;
    let warm = world.command("WARM green EPOCH 1 LIMIT 20000").await;
    assert_eq!(counts(&warm), ["1", "1", "0"], "{warm:?}");
    let sessions = world.rows("SHOW SESSIONS").await;
    assert_eq!(
        (sessions[0]["class"].as_str(), sessions[0]["reason"].as_str()),
        ("pinned", "a login by a password that was changed since, or has expired"),
        "{sessions:?}"
    );
    assert_eq!(value(&old, "select 1").await, "1", "until the cutover nothing happens to it");
    let repointed = world.switch("green", 2).await;
    assert_eq!((repointed["moved"].as_str(), repointed["ended"].as_str()), ("1", "1"), "{repointed:?}");
    assert!(old.simple_query("select 1").await.is_err());
    assert!(value(&new, "show server_version").await.starts_with("18."));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_log_in_no_more_stays_behind_alone() {
    let world = world().await;
    world.blue.sql("create role app login password 'old'").await.unwrap();
    world.green.sql("create role app login").await.unwrap();
    carry(&world).await;
    let app = app(&world, "old").await;
    world.green.sql("alter role app nologin").await.unwrap();
    let warm = world.command("WARM green EPOCH 1 LIMIT 20000").await;
    assert_eq!(counts(&warm), ["0", "0", "1"], "{warm:?}");
    world.blue.sql("alter role app nologin").await.unwrap();
    let warm = world.command("WARM green EPOCH 1 LIMIT 20000").await;
    assert_eq!(counts(&warm), ["0", "1", "0"], "{warm:?}");
    let reason = world.command("SHOW SESSIONS").await["reason"].clone();
    assert_eq!(reason, "a login that its own server would no longer take");
    assert_eq!(value(&app, "select 1").await, "1");
}
