//! Replicas that do not take a reader, or are not to take one yet, and readers that are on a primary for that.

use std::time::Duration;

use pgteal_testkit::{Cluster, wait_until};

use crate::fleet::{Fleet, connect, port_of, ports, said};
use crate::world::value;

const BOUND: Duration = Duration::from_secs(30);

/// The replica's own rules keep the application out; whoever watches it may come in.
async fn shut_out(replica: &Cluster, user: &str) {
    let path = replica.data_dir().join("pg_hba.conf");
    let rules = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("host all {user} all reject\n{rules}")).unwrap();
    replica.sql("select pg_reload_conf()").await.unwrap();
    let refuses = async || match connect(replica.config("postgres").host("127.0.0.1").user(user)).await {
        Ok(_) => Err("lets it in"),
        Err(_) => Ok(()),
    };
    wait_until("a replica to refuse", BOUND, refuses).await.unwrap();
}

async fn replayed(fleet: &Fleet, sql: &str) {
    let primary = &fleet.world.blue;
    primary.sql(sql).await.unwrap();
    let position = primary.sql("select pg_current_wal_flush_lsn()").await.unwrap();
    for replica in &fleet.blue {
        let there = async || {
            let there = format!("select pg_last_wal_replay_lsn() >= '{}'", position.trim());
            let there = replica.sql(&there).await.unwrap();
            if there.trim() == "t" { Ok(()) } else { Err(there) }
        };
        wait_until("a replica to replay", BOUND, there).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_refuses_a_login_keeps_nobody_from_the_others() {
    let fleet = Fleet::new(2, 0, "").await;
    let [one, two] = fleet.blue.as_slice() else { panic!() };
    replayed(&fleet, "create role app login").await;
    shut_out(one, "app").await;
    let mut as_app = fleet.reads();
    let as_app = as_app.user("app");
    let mut readers = Vec::new();
    for _ in 0..4 {
        readers.push(connect(as_app).await.unwrap());
        assert_eq!(port_of(readers.last().unwrap()).await, two.port());
    }
    // Others are let in there.
    assert_eq!(port_of(&fleet.reader().await).await, one.port());
    let stats = fleet.world.command("SHOW STATS").await;
    assert_eq!((stats["login_failures"].as_str(), stats["read_fallbacks"].as_str()), ("0", "0"));

    // The other one is full, and so is the primary, by a connection that its client has left.
    replayed(&fleet, "alter role app connection limit 1").await;
    drop(connect(fleet.world.client_config().user("app")).await.unwrap());
    fleet.until_sessions(&fleet.world.blue, 0).await;
    let reader = connect(as_app).await.unwrap();
    assert_eq!(port_of(&reader).await, fleet.world.blue.port());
    assert_eq!(fleet.world.command("SHOW STATS").await["read_fallbacks"], "1");
    let insert = reader.simple_query("insert into t values (1)").await.unwrap_err();
    assert_eq!(said(&insert).0, "25006");
    for replica in [one, two] {
        assert_eq!(fleet.shown(replica).await["health"], "fit");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_by_all_hears_why_and_a_switch_stops_when_all_are_gone() {
    let fleet = Fleet::new(1, 1, "fallback = \"refuse\"").await;
    replayed(&fleet, "create role app login connection limit 1").await;
    let mut as_app = fleet.reads();
    let as_app = as_app.user("app");
    let only = connect(as_app).await.unwrap();
    let error = connect(as_app).await.map(drop).unwrap_err();
    assert_eq!(said(&error), ("53300".into(), "too many connections for role \"app\"".into()));
    shut_out(&fleet.blue[0], "app").await;
    let error = connect(as_app).await.map(drop).unwrap_err();
    assert_eq!(said(&error).0, "28000");
    assert_eq!(port_of(&only).await, fleet.blue[0].port());
    drop(only);

    fleet.world.command("WARM green EPOCH 1 LIMIT 20000").await;
    fleet.green[0].stop_fast().await.unwrap();
    fleet.until(&fleet.green[0], "down").await;
    fleet.world.command("HOLD EPOCH 1 LIMIT 20000 RUN 'test'").await;
    let (_, why) = fleet.world.refused("SETTLE EPOCH 1 LIMIT 5000").await;
    assert!(why.starts_with("no replica of green takes sessions: "), "{why}");
    fleet.world.command("RELEASE EPOCH 1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_behind_before_the_proxy_began_gets_no_sessions() {
    let mut fleet = Fleet::new(1, 0, "max_replica_lag_ms = 500").await;
    replayed(&fleet, "insert into t values (1)").await;
    fleet.blue[0].sql("select pg_wal_replay_pause()").await.unwrap();
    fleet.world.blue.sql("insert into t values (2)").await.unwrap();
    fleet.until(&fleet.blue[0], "behind").await;
    fleet.start_again().await;
    assert_eq!(port_of(&fleet.reader().await).await, fleet.world.blue.port());
    fleet.until(&fleet.blue[0], "behind").await;
    assert_eq!(port_of(&fleet.reader().await).await, fleet.world.blue.port());
    fleet.blue[0].sql("select pg_wal_replay_resume()").await.unwrap();
    fleet.until(&fleet.blue[0], "fit").await;
    // Who comes before the first check waits for it.
    fleet.start_again().await;
    assert_eq!(port_of(&fleet.reader().await).await, fleet.blue[0].port());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_on_a_primary_goes_to_primaries_with_all_that_it_has() {
    let fleet = Fleet::with(0, 1, "max_replica_lag_ms = 0", |_, green| (Vec::new(), ports(green))).await;
    let reader = fleet.reader().await;
    assert_eq!(port_of(&reader).await, fleet.world.blue.port());
    // A replica takes neither.
    reader.batch_execute("listen a; set default_transaction_isolation = serializable").await.unwrap();
    for (to, epoch, primary) in [("green", 1, &fleet.world.green), ("blue", 2, &fleet.world.blue)] {
        let repointed = fleet.world.switch(to, epoch).await;
        assert_eq!((repointed["moved"].as_str(), repointed["ended"].as_str()), ("1", "0"), "{repointed:?}");
        assert_eq!(port_of(&reader).await, primary.port());
        assert_eq!(value(&reader, "select pg_listening_channels()").await, "a");
        assert_eq!(value(&reader, "show transaction_isolation").await, "serializable");
        let insert = reader.simple_query("insert into t values (1)").await.unwrap_err();
        assert_eq!(said(&insert).0, "25006");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_do_not_turn_to_a_replica_that_fell_behind_since_they_were_made_ready() {
    let fleet = Fleet::new(1, 2, "max_replica_lag_ms = 500").await;
    let reader = fleet.reader().await;
    fleet.world.command("WARM green EPOCH 1 LIMIT 20000").await;
    let [one, two] = fleet.green.as_slice() else { panic!() };
    let behind = if fleet.shown(one).await["ahead"] == "1" { one } else { two };
    assert_eq!(fleet.shown(behind).await["ahead"], "1");
    // While clients are held nobody but the settling looks.
    fleet.world.command("HOLD EPOCH 1 LIMIT 60000 RUN 'test'").await;
    behind.sql("select pg_wal_replay_pause()").await.unwrap();
    fleet.world.green.sql("insert into t values (1)").await.unwrap();
    fleet.until(behind, "behind").await;
    let settled = fleet.world.command("SETTLE EPOCH 1 LIMIT 10000").await;
    assert_eq!((settled["warm"].as_str(), settled["stale"].as_str()), ("1", "0"), "{settled:?}");
    assert_eq!(fleet.world.command("REPOINT green EPOCH 1").await["moved"], "1");
    fleet.world.command("RELEASE EPOCH 1").await;
    assert_ne!(port_of(&reader).await, behind.port());
    assert_eq!(value(&reader, "select count(*) from t").await, "1");
}
