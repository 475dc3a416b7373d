//! The kit's clusters: quick to start, killed as a machine dies, each one of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pgteal_testkit::{Cluster, ClusterError, required_majors, wait_until};
use std::time::{Duration, Instant};

/// The promise is well under a second; the rest is for a machine that also compiles.
const QUICK: Duration = Duration::from_secs(3);

#[tokio::test]
async fn every_major_starts_quickly_and_answers() {
    for major in required_majors() {
        Cluster::builder(major).create().await.unwrap(); // makes the template
        let start = Instant::now();
        let cluster = Cluster::start_new(major).await.unwrap();
        assert!(start.elapsed() < QUICK, "PostgreSQL {major} took {:?}", start.elapsed());
        let number = cluster.sql("show server_version_num").await.unwrap();
        assert_eq!(number.parse::<u32>().unwrap() / 10_000, u32::from(major));
        assert_eq!(cluster.sql("select 1, null, 'x'; select 2").await.unwrap(), "1||x\n2");
        cluster.stop_fast().await.unwrap();
        assert!(cluster.log().contains("database system is shut down"), "{}", cluster.log());
    }
}

#[tokio::test]
async fn copies_of_one_template_are_different_clusters() {
    let (one, two) = tokio::try_join!(Cluster::start_new(18), Cluster::start_new(18)).unwrap();
    let identity = "select system_identifier > 0, system_identifier from pg_control_system()";
    let (first, second) = (one.sql(identity).await.unwrap(), two.sql(identity).await.unwrap());
    assert!(first.starts_with("t|") && second.starts_with("t|"), "{first} {second}");
    assert_ne!(first, second);
    assert_ne!(one.port(), two.port());
}

#[tokio::test]
async fn a_replica_has_what_its_primary_has_and_takes_no_writes() {
    for major in required_majors() {
        let primary = Cluster::start_new(major).await.unwrap();
        let replica = primary.replica("replica").await.unwrap();
        assert_ne!(primary.port(), replica.port());
        primary.sql("create table t (id int); insert into t values (1)").await.unwrap();
        let there = async || replica.sql("select id from t").await.map_err(|error| error.to_string());
        let id = wait_until("the row on the replica", Duration::from_secs(30), there).await.unwrap();
        assert_eq!(id, "1", "PostgreSQL {major}");
        let error = replica.sql("insert into t values (2)").await.unwrap_err().to_string();
        assert!(error.contains("25006"), "{error}");
    }
}

#[tokio::test]
async fn acknowledged_rows_survive_every_way_to_die() {
    let cluster = Cluster::start_new(15).await.unwrap();
    let port = cluster.port();
    cluster.sql("create table t (id int primary key)").await.unwrap();
    for (id, how) in ["fast", "immediate", "kill9", "frozen then kill9"].into_iter().enumerate() {
        cluster.sql(&format!("insert into t values ({id})")).await.unwrap();
        match how {
            "fast" => cluster.stop_fast().await.unwrap(),
            "immediate" => cluster.stop_immediate().await.unwrap(),
            "kill9" => cluster.kill9().unwrap(),
            _ => {
                cluster.freeze().unwrap();
                cluster.kill9().unwrap();
            }
        }
        assert!(cluster.sql("select 1").await.is_err(), "{how}: still answers");
        cluster.start().await.unwrap();
        assert_eq!(cluster.sql("select count(*) from t").await.unwrap(), (id + 1).to_string(), "{how}");
    }
    assert_eq!(cluster.port(), port);
}

#[tokio::test]
async fn a_frozen_cluster_answers_after_the_thaw() {
    let cluster = Cluster::start_new(15).await.unwrap();
    let client = cluster.connect("postgres").await.unwrap();
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).await.unwrap().get(0);

    cluster.freeze().unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(200), client.simple_query("select 1")).await;
    assert!(silence.is_err(), "a frozen server answered");
    cluster.thaw();
    client.simple_query("select 1").await.unwrap();

    cluster.freeze_backend(pid).unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(200), client.simple_query("select 1")).await;
    assert!(silence.is_err(), "a frozen backend answered");
    assert_eq!(cluster.sql("select 2").await.unwrap(), "2", "the others go on");
    cluster.thaw_backend(pid).unwrap();
    client.simple_query("select 1").await.unwrap();

    let stranger = i32::try_from(std::process::id()).unwrap();
    assert!(cluster.freeze_backend(stranger).is_err(), "the kit froze a process that is not the cluster's");
}

#[tokio::test]
async fn options_reach_the_server() {
    let cluster = Cluster::builder(18)
        .checksums(false)
        .locale("C")
        .encoding("SQL_ASCII")
        .initdb_arg("--wal-segsize=1")
        .set("wal_level", "replica")
        .set("application_name", "it's")
        .hba("host all locked 127.0.0.1/32 scram-sha-256")
        .start()
        .await
        .unwrap();
    let settings = [
        ("data_checksums", "off"),
        ("server_encoding", "SQL_ASCII"),
        ("wal_segment_size", "1MB"),
        ("wal_level", "replica"),
        ("fsync", "off"),
    ];
    for (name, value) in settings {
        assert_eq!(cluster.sql(&format!("show {name}")).await.unwrap(), value, "{name}");
    }
    cluster.sql("create role locked login password 'secret'").await.unwrap();
    let mut config = cluster.config("postgres");
    let error = config.user("locked").password("wrong").connect(tokio_postgres::NoTls).await.err().unwrap();
    assert_eq!(error.code().unwrap().code(), "28P01");
    let right = config.password("secret").connect(tokio_postgres::NoTls).await;
    assert!(right.is_ok());
}

#[tokio::test]
async fn a_server_that_cannot_start_shows_its_log() {
    let error = Cluster::builder(15).set("shared_buffers", "1 parsec").start().await.unwrap_err();
    assert!(matches!(error, ClusterError::NotStarted { .. }), "{error}");
    assert!(error.to_string().contains("shared_buffers"), "{error}");
    let error = Cluster::start_new(9).await.unwrap_err().to_string();
    assert!(error.contains("no PostgreSQL 9"), "{error}");
}

#[tokio::test]
async fn nothing_is_left_of_a_dropped_cluster() {
    let cluster = Cluster::start_new(15).await.unwrap();
    let (dir, pid) = (cluster.socket_dir().to_path_buf(), cluster.postmaster_pid().unwrap());
    let _session = cluster.connect("postgres").await.unwrap();
    cluster.freeze().unwrap();
    drop(cluster);
    assert!(!dir.exists());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}
