//! The tool's role has a password on blue and another one on green: the proxy looks up verifiers on each side with that side's,
//! and nobody is held for a side on which it could not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig_cli;

use std::time::Duration;

use pgteal_core::deployment::Side;
use pgteal_core::postgres::ConnInfo;
use pgteal_core::router::{Router as _, RouterError};
use pgteal_routers::proxy::ProxyRouter;
use pgteal_testkit::Cluster;
use rig_cli::Rig;
use serde_json::Value;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Who is logged in to look up verifiers.
const LOOKERS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgteal/auth' AND usename = 'pgteal'";

/// A client that logs in anew, by a password that the proxy has to look up.
async fn log_in(rig: &Rig) -> Client {
    let at = format!("host=127.0.0.1 port={} user=app password=app dbname=shop", rig.port.port());
    let (client, connection) = tokio_postgres::connect(&at, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn console(rig: &Rig) -> Client {
    let mut config = tokio_postgres::Config::new();
    config.host_path(rig.dir.path().join(".pgteal")).port(rig.port.port()).user("us").dbname("pgteal");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Whether the proxy holds, its route, and its epoch.
async fn state(rig: &Rig) -> [String; 3] {
    let rows = console(rig).await.simple_query("SHOW STATE").await.unwrap();
    let row = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    ["state", "route", "epoch"].map(|column| row.unwrap().get(column).unwrap().to_owned())
}

/// Although nobody may write on a side that is fenced.
async fn set_password(side: &Cluster, password: &str) {
    let sql = format!("BEGIN READ WRITE; ALTER ROLE pgteal PASSWORD '{password}'; COMMIT");
    side.sql(&sql).await.unwrap();
}

async fn runs(rig: &Rig) -> usize {
    let runs = rig.must(&["--json", "runs"]).await;
    let runs: Value = serde_json::from_str(runs.stdout.lines().last().unwrap()).unwrap();
    runs["runs"].as_array().unwrap().len()
}

/// Refused before anything began, because the proxy could not look up anything on `side`.
async fn refused(rig: &Rig, command: &str, side: &Cluster) {
    let before = (state(rig).await, runs(rig).await);
    for args in [["--json", command, "--dry-run"].as_slice(), ["--json", command].as_slice()] {
        let output = rig.run(args).await;
        let said = format!("{args:?}: {}{}", output.stdout, output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        let last: Value = serde_json::from_str(output.stdout.lines().last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], "proxy-lookup", "{said}");
        assert_eq!(last["error"]["object"], format!("role pgteal on {}", side.name()), "{said}");
        let what = last["error"]["what"].as_str().unwrap();
        let server = format!("\"pgteal\" cannot look up passwords on 127.0.0.1:{}", side.port());
        assert!(what.contains(&server), "{what}");
        assert_eq!((state(rig).await, runs(rig).await), before, "{said}");
    }
    // Whoever drives the proxy by hand is told as well.
    let epoch: u64 = before.0[2].parse().unwrap();
    let console = console(rig).await;
    for question in [format!("ASK {}", side.name()), format!("WARM {} EPOCH {epoch}", side.name())] {
        let error = console.simple_query(&question).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "55000", "{question}");
        assert!(error.message().contains("cannot look up passwords"), "{question}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_is_asked_with_its_own_password() {
    let mut rig = Rig::with_passwords(15, 18, 200, "", ["b2", "g2"]).await;
    rig.must(&["plan"]).await;
    rig.must(&["up"]).await;
    log_in(&rig).await;

    // Changed on green since the proxy was started.
    set_password(&rig.green, "g3").await;
    rig.passwords[1] = "g3";
    refused(&rig, "switch", &rig.green).await;
    log_in(&rig).await;
    rig.restart_proxy().await;

    let load = rig.workload(40.0).await;
    rig.must(&["switch"]).await;
    log_in(&rig).await;
    assert_ne!(rig.green.sql(LOOKERS).await.unwrap().trim(), "0");

    // The way back is asked as well.
    set_password(&rig.blue, "b3").await;
    rig.passwords[0] = "b3";
    refused(&rig, "back", &rig.blue).await;
    set_password(&rig.blue, "b2").await;
    rig.passwords[0] = "b2";
    rig.must(&["back"]).await;
    log_in(&rig).await;
    let verdict = rig.judge(&load.stop().await, &rig.blue).await;
    assert!(verdict.is_flawless() && verdict.acknowledged > 20, "{verdict:#?}");

    // A console without the command, as an older proxy's is, is not taken for a side that refuses the role.
    rig.blue.sql("CREATE DATABASE pgteal").await.unwrap();
    let console = ConnInfo::at(rig.blue.socket_dir().to_string_lossy(), rig.blue.port(), "postgres");
    let router = ProxyRouter::new("proxy", console.clone(), console, "test").unwrap();
    let said = router.ask(Side::Green, Duration::from_secs(10)).await;
    assert!(matches!(said, Err(RouterError::NotUnderstood { .. })), "{said:?}");
}
