//! Whose connection a client may get: its own user's alone, and only while it can prove that it is.

use pgteal_proxy::{Config, Proxy};
use pgteal_testkit::Cluster;
use tokio_postgres::NoTls;

use super::world::{World, console, value};
use super::{LASTING, idle, lasting, nobody, pid};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_never_mixed() {
    let roles: String = (0..4).map(|n| format!("create role u{n} login;")).collect();
    let world = lasting(&format!("{roles} create table t (v int);")).await;
    world.blue.sql("create database shop").await.unwrap();
    let one = async |n: usize| {
        for round in 0..30 {
            let user = format!("u{}", (n + round) % 4);
            let (database, name) = (["postgres", "shop"][round % 2], ["a", "b", ""][round % 3]);
            let mut config = world.client_config();
            config.user(&user).dbname(database).application_name(name);
            if round % 5 == 0 {
                config.options("-c work_mem=5MB");
            }
            let client = super::connect(&config).await;
            let who = "select concat_ws(',', session_user, current_user, current_database(), \
                current_setting('application_name'), current_setting('work_mem'))";
            let memory = if round % 5 == 0 { "5MB" } else { "4MB" };
            assert_eq!(value(&client, who).await, format!("{user},{user},{database},{name},{memory}"));
            client.batch_execute("set application_name = 'mine'; set work_mem = '6MB'").await.unwrap();
        }
    };
    futures::future::join_all((0..8).map(one)).await;
    let reused: usize = world.command("SHOW STATS").await["upstreams_reused"].parse().unwrap();
    assert!(reused > 20, "{reused} used again");
}

async fn server(method: &str) -> Cluster {
    let builder = Cluster::builder(15).name("blue");
    let hba = [format!("local all app {method}"), format!("host all app all {method}")];
    let builder = hba.iter().fold(builder, |builder, line| builder.hba(line));
    builder.start().await.unwrap()
}

async fn world(server_method: &str, auth: &str) -> World {
    let (blue, green) =
        (server(server_method).await, Cluster::builder(18).name("green").start().await.unwrap());
    blue.sql(&format!(
        "set password_encryption = '{}'; create role app login password 'old'",
        stored(server_method)
    ))
    .await
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "listen = [\"127.0.0.1:0\"]\nunix_dir = \"{dir}\"\nstate_file = \"{dir}/state.json\"\nthreads = 1\n\
         [blue]\nhost = \"{}\"\nport = {}\n[auth]\nservice_user = \"postgres\"\n{auth}\n[pool]\n{LASTING}\n",
        blue.socket_dir().display(),
        blue.port(),
        dir = dir.path().display(),
    );
    let path = dir.path().join("proxy.toml");
    std::fs::write(&path, text).unwrap();
    let proxy = Proxy::start(Config::load(&path).unwrap()).await.unwrap();
    let console = console(proxy.socket().unwrap()).await;
    World { blue, green, proxy: Some(proxy), console, dir }
}

fn stored(method: &str) -> &str {
    if method == "md5" { "md5" } else { "scram-sha-256" }
}

async fn app(world: &World, password: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let mut config = world.client_config();
    config.user("app").password(password);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_opened_by_a_password_that_was_changed_is_nobodys() {
    for method in ["scram-sha-256", "md5"] {
        let world = world(method, "").await;
        let first = pid(&app(&world, "old").await.unwrap()).await;
        idle(&world, 1).await;
        let refused = app(&world, "wrong").await.err().unwrap();
        assert_eq!(refused.code().unwrap().code(), "28P01", "{method}");
        let again = app(&world, "old").await.unwrap();
        assert_eq!(pid(&again).await, first, "{method}");
        let set = format!("set password_encryption = '{}'; alter role app password 'new'", stored(method));
        world.blue.sql(&set).await.unwrap();
        let refused = app(&world, "old").await.err().unwrap();
        assert_eq!(refused.code().unwrap().code(), "28P01", "{method}");
        // Who was let in before goes on, and leaves nothing to those who come by the new one.
        drop(again);
        idle(&world, 1).await;
        let new = app(&world, "new").await.unwrap();
        assert_ne!(pid(&new).await, first, "{method}");
        idle(&world, 0).await;
        drop(new);
        idle(&world, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_log_in_no_more_gets_none() {
    let world = world("scram-sha-256", "").await;
    drop(app(&world, "old").await.unwrap());
    idle(&world, 1).await;
    world.blue.sql("alter role app nologin").await.unwrap();
    assert!(app(&world, "old").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_server_is_the_judge_each_login_is_judged() {
    let world = world("scram-sha-256", "method = \"cleartext\"\ncleartext_without_tls = true").await;
    let first = pid(&app(&world, "old").await.unwrap()).await;
    nobody(&world).await;
    idle(&world, 0).await;
    assert_eq!(app(&world, "wrong").await.err().unwrap().code().unwrap().code(), "28P01");
    assert_ne!(pid(&app(&world, "old").await.unwrap()).await, first);
}
