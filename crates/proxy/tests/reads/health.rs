//! Replicas that die, lag, or are none: who is sent there, and who is left alone.

use crate::fleet::{Fleet, connect, port_of, ports, said};
use crate::world::value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_dies_ends_its_own_sessions_and_no_others() {
    let fleet = Fleet::new(2, 0, "").await;
    let [one, two] = fleet.blue.as_slice() else { panic!() };
    let (first, second) = (fleet.reader().await, fleet.reader().await);
    let (theirs, others) =
        if port_of(&first).await == one.port() { (first, second) } else { (second, first) };
    one.kill9().unwrap();
    // At once, whether or not anybody knows that it is gone.
    for _ in 0..5 {
        assert_eq!(port_of(&fleet.reader().await).await, two.port());
    }
    assert!(theirs.simple_query("select 1").await.is_err());
    assert_eq!(port_of(&others).await, two.port());
    fleet.until(one, "down: cannot connect to 127.0.0.1").await;
    assert_eq!(fleet.world.command("SHOW STATS").await["read_fallbacks"], "0");
    one.start().await.unwrap();
    fleet.until(one, "fit").await;
    assert_eq!(port_of(&fleet.reader().await).await, one.port());

    // Nobody answers at all: a hanging server keeps a login for two seconds at most.
    one.freeze().unwrap();
    for _ in 0..4 {
        assert_eq!(port_of(&fleet.reader().await).await, two.port());
    }
    fleet.until(one, "down").await;
    one.thaw();
    fleet.until(one, "fit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_behind_gets_no_sessions_until_it_is_not() {
    let fleet = Fleet::new(2, 0, "max_replica_lag_ms = 500").await;
    let [one, two] = fleet.blue.as_slice() else { panic!() };
    let old = connect(&fleet.reads()).await.unwrap();
    let behind = if port_of(&old).await == one.port() { one } else { two };
    let level = if behind.port() == one.port() { two } else { one };
    behind.sql("select pg_wal_replay_pause()").await.unwrap();
    fleet.world.blue.sql("insert into t values (1)").await.unwrap();
    fleet.until(behind, "behind").await;
    let lag: u64 = fleet.shown(behind).await["lag_ms"].parse().unwrap();
    assert!(lag > 500, "{lag}");
    assert!(fleet.metric("replica_lag_seconds", behind).await.unwrap() > 0.5);
    assert_eq!(fleet.metric("replica_fit", behind).await, Some(0.0));
    for _ in 0..4 {
        assert_eq!(port_of(&fleet.reader().await).await, level.port());
    }
    // Who is there stays there.
    assert_eq!(port_of(&old).await, behind.port());
    assert_eq!(value(&old, "select count(*) from t").await, "0");
    behind.sql("select pg_wal_replay_resume()").await.unwrap();
    fleet.until(behind, "fit").await;
    assert_eq!(fleet.shown(behind).await["lag_ms"], "0");

    // One that became a primary serves what nobody else has.
    behind.sql("select pg_promote()").await.unwrap();
    fleet.until(behind, "not a replica: it is not in recovery").await;
    assert_eq!(port_of(&fleet.reader().await).await, level.port());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_of_another_cluster_is_not_read_from() {
    let fleet = Fleet::with(0, 1, "", |_, green| (ports(green), Vec::new())).await;
    fleet.until(&fleet.green[0], "not a replica of this primary").await;
    assert_eq!(port_of(&fleet.reader().await).await, fleet.world.blue.port());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_side_is_checked_by_its_own_service_role() {
    let service = "[auth.green]\nservice_user = \"looker\"";
    let fleet = Fleet::with(1, 1, service, |blue, green| (ports(blue), ports(green))).await;
    fleet.until(&fleet.blue[0], "fit").await;
    fleet.until(&fleet.green[0], "down").await;
    fleet.world.green.sql("create role looker login").await.unwrap();
    fleet.until(&fleet.green[0], "fit").await;
    let who = "select string_agg(distinct usename, ' ') from pg_stat_activity where application_name = 'pgteal/reads'";
    for (server, role) in [(&fleet.blue[0], "postgres"), (&fleet.green[0], "looker")] {
        assert_eq!(server.sql(who).await.unwrap().trim(), role, "{}", server.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_replicas_readers_go_to_the_primary_or_are_refused() {
    for (reads, refuses) in [("", false), ("fallback = \"refuse\"", true)] {
        let fleet = Fleet::new(1, 0, reads).await;
        let replica = &fleet.blue[0];
        replica.stop_fast().await.unwrap();
        fleet.until(replica, "down").await;
        let login = connect(&fleet.reads()).await;
        if refuses {
            let (code, message) = said(&login.map(drop).unwrap_err());
            assert_eq!(code, "57P03");
            let expected =
                format!("no replica of blue takes sessions: 127.0.0.1:{} is down: ", replica.port());
            assert!(message.starts_with(&expected), "{message}");
            // Nobody who reads could after a switch to green: it is said before.
            let (_, why) = fleet.world.refused("WARM green EPOCH 1").await;
            assert_eq!(
                why,
                "no replica of green takes sessions: it has none; and reads.fallback is \"refuse\""
            );
        } else {
            let client = login.unwrap();
            assert_eq!(port_of(&client).await, fleet.world.blue.port());
            assert_eq!(fleet.world.command("SHOW STATS").await["read_fallbacks"], "1");
            // It stays there; who comes later goes to the replica that is back.
            replica.start().await.unwrap();
            fleet.until(replica, "fit").await;
            assert_eq!(port_of(&client).await, fleet.world.blue.port());
            assert_eq!(port_of(&fleet.reader().await).await, replica.port());
        }
    }
}
