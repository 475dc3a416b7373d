//! The program itself: killed while it holds, ended while transactions are open, and logins that need no stored password.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pgteal_testkit::{Cluster, wait_until};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};
use world::{console, value};

struct Program(Child);

impl Program {
    fn start(dir: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_pgteal-proxy"))
            .arg("--config")
            .arg(dir.join("proxy.toml"))
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").arg(format!("-{name}")).arg(self.0.id().to_string()).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn ready(dir: &Path) -> Client {
    let socket = dir.join(".s.PGSQL.6432");
    wait_until("the proxy to listen", Duration::from_secs(10), async || {
        tokio::net::UnixStream::connect(&socket).await.map(drop)
    })
    .await
    .unwrap();
    console(&socket).await
}

async fn client(dir: &Path, user: &str, password: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config = Config::new();
    config.host_path(dir).port(6432).user(user).password(password).dbname("postgres");
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Both servers ask user `app` for SCRAM and hold the same verifier; the proxy's file knows no password.
async fn scram_servers() -> (Cluster, Cluster) {
    let hba = "local all app scram-sha-256\nhost all app all scram-sha-256";
    let builder = |major, name| {
        hba.lines().fold(Cluster::builder(major).name(name), |builder, line| builder.hba(line)).start()
    };
    let (blue, green) = tokio::try_join!(builder(15, "blue"), builder(18, "green")).unwrap();
    blue.sql("create role app login password 'sesame'").await.unwrap();
    let verifier = blue.sql("select rolpassword from pg_authid where rolname = 'app'").await.unwrap();
    green.sql(&format!("create role app login password '{verifier}'")).await.unwrap();
    for (cluster, name) in [(&blue, "blue"), (&green, "green")] {
        cluster
            .sql(&format!("create function who() returns text language sql as $$select '{name}'$$"))
            .await
            .unwrap();
    }
    (blue, green)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_proxy_starts_again_where_it_was_and_clients_log_in_by_what_they_proved() {
    let (blue, green) = scram_servers().await;
    let dir = tempfile::tempdir().unwrap();
    world::config(dir.path(), &blue, &green, "");
    let path = dir.path().join("proxy.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("method = \"trust\"", "service_user = \"postgres\"")).unwrap();
    let mut program = Program::start(dir.path());
    let console = ready(dir.path()).await;
    let wrong = client(dir.path(), "app", "open").await.err().unwrap();
    assert_eq!(wrong.code(), Some(&SqlState::INVALID_PASSWORD));
    let app = client(dir.path(), "app", "sesame").await.unwrap();
    assert_eq!(value(&app, "select who()").await, "blue");
    for command in [
        "WARM green EPOCH 1",
        "HOLD EPOCH 1 LIMIT 20000",
        "DRAIN EPOCH 1 BUDGET 5000",
        "SETTLE EPOCH 1 LIMIT 5000",
        "REPOINT green EPOCH 1",
        "RELEASE EPOCH 1",
    ] {
        console.simple_query(command).await.unwrap();
    }
    assert_eq!(value(&app, "select who() || current_user").await, "greenapp");
    // Killed while it holds: clients get a connection error, and a new process is open and on green.
    console.simple_query("HOLD EPOCH 2 LIMIT 60000").await.unwrap();
    program.0.kill().unwrap();
    program.0.wait().unwrap();
    let error = app.simple_query("select 1").await.unwrap_err();
    assert!(error.as_db_error().is_none(), "{error:?}");
    assert!(error.is_closed() || std::error::Error::source(&error).is_some(), "{error:?}");
    let _program = Program::start(dir.path());
    let console = self::ready(dir.path()).await;
    assert_eq!(value(&console, "SHOW STATE").await, "flowing");
    let app = client(dir.path(), "app", "sesame").await.unwrap();
    assert_eq!(value(&app, "select who()").await, "green");
    let error = console.simple_query("HOLD EPOCH 1 LIMIT 100").await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().message(), "stale epoch 1: epoch 2 drives this proxy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_transactions_end_and_tells_the_idle() {
    let (blue, green) = world::servers().await;
    let dir = tempfile::tempdir().unwrap();
    world::config(dir.path(), &blue, &green, "");
    let mut program = Program::start(dir.path());
    let console = ready(dir.path()).await;
    let (idle, open) = (
        client(dir.path(), "postgres", "").await.unwrap(),
        client(dir.path(), "postgres", "").await.unwrap(),
    );
    // Reads certificates again, and ends nothing.
    program.signal("HUP");
    open.batch_execute("begin; create table t (n int)").await.unwrap();
    console.simple_query("HOLD EPOCH 1 LIMIT 60000").await.unwrap();
    program.signal("TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(idle.simple_query("select 1").await.is_err());
    assert!(program.0.try_wait().unwrap().is_none(), "a transaction is open");
    open.batch_execute("commit").await.unwrap();
    wait_until("the program to end", Duration::from_secs(5), async || match program.0.try_wait().unwrap() {
        Some(status) if status.success() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .unwrap();
    assert_eq!(blue.sql("select count(*) from t").await.unwrap(), "0");
    assert!(!dir.path().join(".s.PGSQL.6432").exists());
}
