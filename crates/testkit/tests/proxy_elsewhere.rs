//! A proxy that was started for another green than the one that was built would move clients to where nobody follows: that is
//! found out before anybody is held, by the command and by the run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig_cli;

use pgteal_testkit::Cluster;
use rig_cli::{End, Rig};
use serde_json::Value;

/// Starts the proxy for a green on another port than that of the configuration, which stays as it is.
async fn start_for(rig: &mut Rig, port: u16) {
    let file = rig.dir.path().join("pgteal.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let other = text.replace(&format!("port={} ", rig.green.port()), &format!("port={port} "));
    std::fs::write(&file, other).unwrap();
    rig.restart_proxy().await;
    std::fs::write(&file, text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_with_another_green_moves_nobody() {
    let (mut rig, former) = tokio::join!(Rig::new(15, 18, 50), Cluster::builder(18).name("former").start());
    let former = former.unwrap();
    former.sql("CREATE ROLE pgteal SUPERUSER LOGIN PASSWORD 'tool'").await.unwrap();
    start_for(&mut rig, former.port()).await;
    rig.must(&["up"]).await;
    for args in [["--json", "switch"].as_slice(), ["--json", "switch", "--dry-run"].as_slice()] {
        let output = rig.run(args).await;
        let said = format!("{args:?}: {}{}", output.stdout, output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        let last: Value = serde_json::from_str(output.stdout.lines().last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], "proxy-elsewhere", "{said}");
        assert_eq!(last["error"]["object"], "server green of the proxy", "{said}");
    }
    let runs: Value = serde_json::from_str(&rig.must(&["--json", "runs"]).await.stdout).unwrap();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1, "nothing had begun: {runs:#}");

    // Started for another one while a run waits for somebody to take it up.
    let green = rig.green.port();
    start_for(&mut rig, green).await;
    let (end, output) = rig.crash(&["switch"], "switch/guardrails/started").await;
    assert_eq!(end, End::Crashed, "{}{}", output.stdout, output.stderr);
    start_for(&mut rig, former.port()).await;
    let output = rig.run(&["resume"]).await;
    let said = format!("{}{}", output.stdout, output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("leads astray: what it takes for green is a server of another cluster"), "{said}");

    start_for(&mut rig, green).await;
    rig.must(&["switch"]).await;

    // A server that is down is what it is, and not the proxy's trouble.
    rig.blue.kill9().unwrap();
    let output = rig.run(&["--json", "back"]).await;
    let last: Value = serde_json::from_str(output.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "unreachable", "{last:#}");
}
