//! Servers that are not what the configuration says they are, given to the commands that users run: each is refused by
//! name with the exit code of its kind, and nothing is changed on either side.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgteal_testkit::{Cluster, Program, Scratch, binary};
use serde_json::Value;

const BOUND: Duration = Duration::from_secs(60);
const PASSWORD: &str = "geheim";
const WRONG: &str = "vertan";

/// A configuration and the passwords given by environment.
struct Given<'a> {
    blue: u16,
    green: u16,
    bindir: &'a Path,
    passwords: [&'a str; 2],
}

/// Runs a command and answers its exit code and the last object it printed.
async fn run(dir: &Arc<Scratch>, command: &str, given: &Given<'_>) -> (i32, Value) {
    let conninfo = |port: u16| format!("host=127.0.0.1 port={port} user=pgteal dbname=postgres");
    let config = format!(
        "[deployment]\nname = \"input\"\n[blue]\nconninfo = \"{}\"\n[green]\nprovider = \"existing\"\nconninfo = \"{}\"\n\
         bindir = \"{}\"\n",
        conninfo(given.blue),
        conninfo(given.green),
        given.bindir.display()
    );
    std::fs::write(dir.path().join("pgteal.toml"), config).unwrap();
    let program = Program::product("pgteal").unwrap().args([command, "--json"]).dir(dir);
    let program = program.env("PGTEAL_BLUE_PASSWORD", given.passwords[0]);
    let output = program.env("PGTEAL_GREEN_PASSWORD", given.passwords[1]).run(BOUND).await.unwrap();
    let last = output.stdout.lines().last().unwrap_or_else(|| panic!("{command} said nothing: {output:?}"));
    (output.status.code().unwrap_or(-1), serde_json::from_str(last).unwrap())
}

async fn cluster(major: u16, name: &str) -> Cluster {
    let builder = Cluster::builder(major).name(name).hba("host all pgteal 127.0.0.1/32 scram-sha-256");
    let cluster = builder.start().await.unwrap();
    cluster.sql(&format!("CREATE ROLE pgteal SUPERUSER LOGIN PASSWORD '{PASSWORD}'")).await.unwrap();
    cluster
}

/// The same cluster in recovery, as a standby whose primary is gone.
async fn standby(major: u16, name: &str) -> Cluster {
    let cluster = cluster(major, name).await;
    let signal = cluster.data_dir().join("standby.signal");
    cluster.sql(&format!("COPY (SELECT) TO '{}'", signal.display())).await.unwrap();
    cluster.restart().await.unwrap();
    assert_eq!(cluster.sql("SELECT pg_is_in_recovery()").await.unwrap(), "t");
    cluster
}

/// What a run of ours could have left on a server.
async fn left(cluster: &Cluster) -> String {
    let sql = "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)
        + (SELECT count(*) FROM pg_subscription) + (SELECT count(*) FROM pg_namespace WHERE nspname = 'pgteal')
        + (SELECT count(*) FROM pg_event_trigger)";
    cluster.sql(sql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_cannot_be_blue_or_green_are_refused_by_the_commands() {
    let (blue, green, reader) =
        tokio::join!(cluster(15, "blue"), cluster(18, "green"), standby(18, "standby"));
    let dir = Arc::new(Scratch::new().unwrap());
    let given = |blue: u16, green: u16| Given {
        blue,
        green,
        bindir: reader.distribution().bin(),
        passwords: [PASSWORD, PASSWORD],
    };
    for (blue_port, green_port, check, what) in [
        (blue.port(), blue.port(), "two-primaries", "Blue and green are the same server."),
        (blue.port(), reader.port(), "two-primaries", "Green is a standby: it is in recovery."),
        (reader.port(), green.port(), "two-primaries", "Blue is a standby: it is in recovery."),
        (green.port(), blue.port(), "version-order", "Green runs PostgreSQL 15"),
    ] {
        let given = given(blue_port, green_port);
        let (code, said) = run(&dir, "plan", &given).await;
        let finding =
            said["findings"].as_array().unwrap().iter().find(|finding| {
                finding["check"] == check && finding["what"].as_str().unwrap().starts_with(what)
            });
        assert!(finding.is_some_and(|finding| finding["severity"] == "blocker"), "{what}: {said:#}");
        assert_eq!(code, 3, "{what}: {said:#}");
        let (code, said) = run(&dir, "up", &given).await;
        assert_eq!((code, &said["error"]["code"]), (3, &"blocked".into()), "{what}: {said:#}");
        assert!(said["error"]["what"].as_str().unwrap().contains(what), "{what}: {said:#}");
    }
    for cluster in [&blue, &green, &reader] {
        assert_eq!(left(cluster).await, "0", "on {}", cluster.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doors_that_do_not_open_are_named_by_the_commands() {
    let (blue, green) = tokio::join!(cluster(15, "blue"), cluster(18, "green"));
    let dir = Arc::new(Scratch::new().unwrap());
    // Something that is no PostgreSQL: it answers in words of its own and hangs up.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let other_port = other.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for connection in other.incoming() {
            let mut connection = connection.unwrap();
            let _ = connection.read(&mut [0; 1024]);
            let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (b, g) = (blue.port(), green.port());
    for (name, ports, passwords, code, object) in [
        ("blue's password", (b, g), [WRONG, PASSWORD], "login-refused", "server blue"),
        ("green's password", (b, g), [PASSWORD, WRONG], "login-refused", "server green"),
        ("nobody is blue", (nobody, g), [PASSWORD; 2], "unreachable", "server blue"),
        ("nobody is green", (b, nobody), [PASSWORD; 2], "unreachable", "server green"),
        ("blue is no PostgreSQL", (other_port, g), [PASSWORD; 2], "unreachable", "server blue"),
        ("green is no PostgreSQL", (b, other_port), [PASSWORD; 2], "unreachable", "server green"),
    ] {
        let given = Given { blue: ports.0, green: ports.1, bindir: green.distribution().bin(), passwords };
        for command in ["plan", "up"] {
            let (exit, said) = run(&dir, command, &given).await;
            let error = &said["error"];
            assert_eq!((exit, &error["code"]), (9, &code.into()), "{name}, {command}: {said:#}");
            assert!(error["object"].as_str().unwrap().contains(object), "{name}, {command}: {said:#}");
            let said = said.to_string();
            assert!(!said.contains(PASSWORD) && !said.contains(WRONG), "{name}: a password in {said}");
        }
    }
    for cluster in [&blue, &green] {
        assert_eq!(left(cluster).await, "0", "on {}", cluster.name());
    }
}

/// What keeps the proxy from starting is an answer like any other, not a line in a log.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_cannot_start_says_why() {
    binary("pgteal-proxy").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    let dir = Arc::new(Scratch::new().unwrap());
    let config = format!(
        "[deployment]\nname = \"input\"\n[blue]\nconninfo = \"host=127.0.0.1 port=1\"\n[green]\n\
         provider = \"existing\"\nconninfo = \"host=127.0.0.1 port=2\"\n[proxy]\nlisten = [\"{taken}\"]\n"
    );
    std::fs::write(dir.path().join("pgteal.toml"), config).unwrap();
    let start = async |json: &str| {
        let program = Program::product("pgteal").unwrap().args(["proxy", json]).dir(&dir);
        program.run(BOUND).await.unwrap()
    };
    let output = start("--json").await;
    let said: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &said["error"]["code"]), (Some(2), &"proxy-start".into()), "{said:#}");
    assert!(said["error"]["what"].as_str().unwrap().contains(&taken.to_string()), "{said:#}");
    let output = start("-v").await;
    assert!(output.stderr.contains("next:   ") && output.stdout.is_empty(), "{output:?}");
    drop(listener);
    std::fs::write(dir.path().join(".pgteal/proxy.state"), "scribbled over").unwrap();
    let said: Value = serde_json::from_str(&start("--json").await.stdout).unwrap();
    assert!(said["error"]["what"].as_str().unwrap().contains("proxy.state"), "{said:#}");
}
