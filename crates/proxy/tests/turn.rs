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
