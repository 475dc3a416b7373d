//! Hold, repoint and release between two real servers, as clients see it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use world::{World, value};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_session_goes_to_the_other_side_with_all_it_has() {
    let world = World::new("create table t (id int); create role other;").await;
    let client = world.client().await;
    client
        .batch_execute(
            "set search_path = pg_catalog, public; set work_mem = '8MB'; set app.tenant = 'it''s \\ me'; \
             prepare q(int) as select $1 + 1; set role other",
        )
        .await
        .unwrap();
    let statement = client.prepare("select who() || $1::text").await.unwrap();
    assert_eq!(client.query_one(&statement, &[&"!"]).await.unwrap().get::<_, String>(0), "blue!");
    let repointed = world.switch("green", 1).await;
    assert_eq!((repointed["moved"].as_str(), repointed["cold"].as_str()), ("1", "0"), "{repointed:?}");
    assert_eq!(client.query_one(&statement, &[&"!"]).await.unwrap().get::<_, String>(0), "green!");
    for (sql, expected) in [
        ("show search_path", "pg_catalog, public"),
        ("show work_mem", "8MB"),
        ("show app.tenant", "it's \\ me"),
        ("select current_user", "other"),
        ("execute q(41)", "42"),
        ("show server_version_num", &world.green.sql("show server_version_num").await.unwrap()),
    ] {
        assert_eq!(value(&client, sql).await, expected, "{sql}");
    }
    assert_eq!(value(&client, "reset work_mem; show work_mem").await, "4MB");
    let repointed = world.switch("blue", 2).await;
    assert_eq!((repointed["moved"].as_str(), repointed["cold"].as_str()), ("1", "0"), "{repointed:?}");
    assert_eq!(client.query_one(&statement, &[&"!"]).await.unwrap().get::<_, String>(0), "blue!");
    assert_eq!(value(&client, "execute q(41)").await, "42");
    assert_eq!(value(&client, "show work_mem").await, "4MB");
}

/// Who logged in may set nothing of this: a role that it took on may, or the one that it took on before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_role_may_set_is_set_over_there_too() {
    let world = World::new(
        "create role app login; create role boss superuser; create role clerk; grant boss, clerk to app",
    )
    .await;
    let mut config = world.client_config();
    config.user("app");
    let mut clients = Vec::new();
    for roles in ["boss", "boss, clerk"] {
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("set work_mem = '7MB'").await.unwrap();
        client.batch_execute("set role boss; set log_min_duration_statement = '77s'").await.unwrap();
        if roles.contains("clerk") {
            // What was set stays, though this role could not set it.
            client.batch_execute("set role clerk").await.unwrap();
        }
        clients.push(client);
    }
    let (boss, clerk) = (&clients[0], &clients[1]);
    let warm = world.command("WARM green EPOCH 1").await;
    // Nothing tells by which role the clerk's was set: it is named, and nobody moves without it.
    assert_eq!((warm["warm"].as_str(), warm["failed"].as_str()), ("1", "1"), "{warm:?}");
    assert!(warm["failed_reason"].starts_with("setting log_min_duration_statement"), "{warm:?}");
    clerk.batch_execute("reset role; reset all").await.unwrap();
    assert_eq!(world.switch("green", 2).await["moved"], "2");
    for (sql, expected) in [
        ("select current_setting('role')", "boss"),
        ("show log_min_duration_statement", "77s"),
        ("show work_mem", "7MB"),
        ("select who()", "green"),
    ] {
        assert_eq!(value(boss, sql).await, expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_is_broken_here_too_holds_nobody_back() {
    let world = World::new("create table gone (id int); create table t (id int)").await;
    let client = world.client().await;
    let broken = client.prepare("select * from gone").await.unwrap();
    let sound = client.prepare("select who()").await.unwrap();
    world.blue.sql("drop table gone").await.unwrap();
    world.green.sql("drop table gone").await.unwrap();
    assert_eq!(world.switch("green", 1).await["moved"], "1");
    assert_eq!(client.query_one(&sound, &[]).await.unwrap().get::<_, String>(0), "green");
    assert!(client.query(&broken, &[]).await.is_err());
    // One that only the other side refuses cannot be carried, and is named.
    let only_here = client.prepare("select id from t").await.unwrap();
    world.blue.sql("drop table t").await.unwrap();
    let warm = world.command("WARM blue EPOCH 2").await;
    assert_eq!((warm["warm"].as_str(), warm["failed"].as_str()), ("0", "1"), "{warm:?}");
    assert!(warm["failed_reason"].ends_with("relation \"t\" does not exist"), "{warm:?}");
    assert!(client.query(&only_here, &[]).await.unwrap().is_empty());
}
