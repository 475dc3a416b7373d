//! The local provider on real servers: a green in blue's image, made once, taken away without a trace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use pgteal_core::deployment::DeploymentId;
use pgteal_core::providers::{
    Existing, GreenState, Headroom, Local, LocalConfig, Programs, Provider, ProviderError,
};
use pgteal_postgres::{ConnInfo, Password, Purpose, Server};
use pgteal_testkit::{Cluster, Distribution, PortLease, Scratch};

const HEADROOM: Headroom = Headroom { databases: 2, copy_workers: 2 };
const BOUND: Duration = Duration::from_secs(60);

async fn blue(major: u16) -> (Cluster, Server) {
    let cluster = Cluster::builder(major).set("work_mem", "7MB").set("archive_command", "false");
    let cluster = cluster.checksums(true).hba("host app all 10.0.0.0/8 scram-sha-256").start().await.unwrap();
    cluster.sql("CREATE ROLE pgteal SUPERUSER LOGIN PASSWORD 'secret'").await.unwrap();
    let info = ConnInfo::at("127.0.0.1", cluster.port(), "pgteal").with_password(Password::new("secret"));
    let server = Server::new("blue", info.with_database("postgres")).unwrap();
    (cluster, server)
}

fn config(scratch: &Scratch, port: &PortLease, major: u16) -> LocalConfig {
    LocalConfig {
        bindir: Distribution::find(major).unwrap().bin().to_owned(),
        data_dir: scratch.path().join("deep/green"),
        port: port.port(),
        listen: "127.0.0.1".to_owned(),
        unix_dir: scratch.path().join("socket"),
        os_user: None,
        parameters: BTreeMap::from([
            ("fsync".to_owned(), "off".to_owned()),
            ("work_mem".to_owned(), "9MB".to_owned()),
        ]),
        tool_role: "pgteal".to_owned(),
        password: Some(Password::new("secret")),
    }
}

fn id(text: &str) -> DeploymentId {
    DeploymentId::parse(text).unwrap()
}

#[tokio::test]
async fn green_is_made_in_blues_image_and_leaves_no_trace() {
    let (_blue, server) = blue(15).await;
    let (scratch, port) = (Scratch::new().unwrap(), PortLease::take().unwrap());
    let local = Local::new(config(&scratch, &port, 18), id("abcd2345")).unwrap();
    assert_eq!(local.observe().await.unwrap(), GreenState::Absent);
    let prepared = local.prepare(&server, HEADROOM).await.unwrap();
    assert_eq!(local.observe().await.unwrap(), GreenState::Stopped);
    assert_eq!(local.prepare(&server, HEADROOM).await.unwrap(), prepared, "a second time changes nothing");
    let left_out: Vec<&str> = prepared.left_out.iter().map(|l| l.name.as_str()).collect();
    assert!(left_out.contains(&"archive_command") && left_out.contains(&"port"), "{left_out:?}");
    local.start(BOUND).await.unwrap();
    local.start(BOUND).await.unwrap();
    assert_eq!(local.observe().await.unwrap(), GreenState::Running);

    for info in [local.conninfo(), local.replication_conninfo()] {
        let green = Server::new("green", info.clone()).unwrap();
        let session = green.connect("postgres", Purpose::control("test")).await.unwrap();
        assert_eq!(session.version().major, 18);
        let sql = "select concat_ws(' ', current_setting('work_mem'), current_setting('wal_level'),
            current_setting('data_checksums'), current_setting('max_prepared_transactions'),
            (select datcollate from pg_database where datname = 'template1'),
            (select count(*) from pg_hba_file_rules where error is not null),
            (select count(*) from pg_hba_file_rules where database = '{app}'),
            (select rolname from pg_authid where oid = 10))";
        let row = session.query_one("looking", sql, &[]).await.unwrap();
        assert_eq!(row.get::<String>(0).unwrap(), "9MB logical on 10 C.UTF-8 0 1 postgres");
    }
    local.stop(BOUND).await.unwrap();
    assert_eq!(local.observe().await.unwrap(), GreenState::Stopped);
    local.remove().await.unwrap();
    local.remove().await.unwrap();
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing is left");
}

#[tokio::test]
async fn somebody_elses_directory_is_refused_and_a_half_made_one_made_anew() {
    let (_blue, server) = blue(15).await;
    let (scratch, port) = (Scratch::new().unwrap(), PortLease::take().unwrap());
    let config = config(&scratch, &port, 18);
    let data = config.data_dir.clone();
    let local = Local::new(config.clone(), id("abcd2345")).unwrap();
    let other = Local::new(config, id("dcba5432")).unwrap();

    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("PG_VERSION"), "18").unwrap();
    assert!(matches!(local.observe().await.unwrap(), GreenState::Foreign(_)));
    assert!(matches!(local.prepare(&server, HEADROOM).await, Err(ProviderError::Foreign { .. })));
    assert!(matches!(local.remove().await, Err(ProviderError::Foreign { .. })));
    assert!(data.join("PG_VERSION").exists());
    std::fs::remove_dir_all(data.parent().unwrap()).unwrap();

    // As a crash in the middle leaves it: begun, running, not finished.
    local.prepare(&server, HEADROOM).await.unwrap();
    local.start(BOUND).await.unwrap();
    let marker = scratch.path().join("deep/green.pgteal.json");
    let text = std::fs::read_to_string(&marker).unwrap().replace("\"ready\"", "\"making\"");
    std::fs::write(&marker, text).unwrap();
    assert_eq!(local.observe().await.unwrap(), GreenState::HalfMade);
    assert!(matches!(other.observe().await.unwrap(), GreenState::Foreign(_)));
    local.prepare(&server, HEADROOM).await.unwrap();
    assert_eq!(local.observe().await.unwrap(), GreenState::Stopped);
    assert!(matches!(other.remove().await, Err(ProviderError::Foreign { .. })));
    local.remove().await.unwrap();
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing is left");
}

#[tokio::test]
async fn a_given_server_is_claimed_only_when_empty_and_given_back() {
    let (_blue, server) = blue(15).await;
    let green = Cluster::start_new(18).await.unwrap();
    let info = ConnInfo::at("127.0.0.1", green.port(), "postgres").with_database("postgres");
    let programs = Programs::client_only(Distribution::find(18).unwrap().bin()).unwrap();
    let provider =
        |id_text| Existing::new(info.clone(), info.clone(), id(id_text), programs.clone()).unwrap();
    let (ours, other) = (provider("abcd2345"), provider("dcba5432"));

    green.sql("create table public.precious (a int)").await.unwrap();
    assert!(matches!(ours.prepare(&server, HEADROOM).await, Err(ProviderError::Foreign { .. })));
    green.sql("drop table public.precious").await.unwrap();
    green.sql("create database precious").await.unwrap();
    assert!(matches!(ours.observe().await.unwrap(), GreenState::Foreign(why) if why.contains("precious")));
    green.sql("drop database precious").await.unwrap();

    assert_eq!(ours.observe().await.unwrap(), GreenState::Absent);
    assert!(ours.facts().await.unwrap().must_be_empty && ours.answers().await.unwrap());
    ours.prepare(&server, HEADROOM).await.unwrap();
    ours.prepare(&server, HEADROOM).await.unwrap();
    assert_eq!(ours.observe().await.unwrap(), GreenState::Running);
    assert!(ours.facts().await.unwrap().extensions.unwrap().contains_key("hstore"));
    assert!(matches!(other.observe().await.unwrap(), GreenState::Foreign(why) if why.contains("abcd2345")));
    assert!(matches!(other.prepare(&server, HEADROOM).await, Err(ProviderError::Foreign { .. })));
    other.remove().await.unwrap();
    assert_eq!(ours.observe().await.unwrap(), GreenState::Running, "another's removal does not touch it");
    ours.remove().await.unwrap();
    ours.remove().await.unwrap();
    assert_eq!(ours.observe().await.unwrap(), GreenState::Absent);
}
