//! One process takes over from another: nobody is refused, sessions go on, and whoever dies on the way leaves one that serves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pgteal_proxy::{Config, Proxy};
use pgteal_testkit::{Cluster, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use world::{console, value};

const BOUND: Duration = Duration::from_secs(60);

struct Program(Child);

impl Program {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgteal-proxy"));
        command.arg("--config").arg(dir.join("proxy.toml")).args(args);
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }

    /// One that is not to start: what it says.
    async fn refused(dir: &Path, args: &[&str]) -> String {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pgteal-proxy"));
        command.arg("--config").arg(dir.join("proxy.toml")).args(args).kill_on_drop(true);
        let output = tokio::time::timeout(BOUND, command.output()).await.unwrap().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    async fn ends(&mut self) {
        wait_until("the process to end well", BOUND, async || match self.0.try_wait().unwrap() {
            Some(status) if status.success() => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
        .unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Stage {
    blue: Cluster,
    green: Cluster,
    dir: tempfile::TempDir,
}

impl Stage {
    async fn new(extra: &str) -> Self {
        let (blue, green) = world::servers().await;
        for (cluster, name) in [(&blue, "blue"), (&green, "green")] {
            let who = format!("create function who() returns text language sql as $$select '{name}'$$");
            cluster.sql(&who).await.unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        world::config(dir.path(), &blue, &green, extra);
        Self { blue, green, dir }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    async fn client(&self) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.path()).port(6432).user("postgres").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn start(&self) -> Program {
        let program = Program::start(self.path(), &[]);
        self.answers().await;
        program
    }

    /// Another process, which serves by the time of the answer.
    async fn take_over(&self) -> Program {
        let before = self.console().await;
        let program = Program::start(self.path(), &["--takeover"]);
        wait_until("the old process to close its console", BOUND, async || {
            if before.is_closed() { Ok(()) } else { Err("open") }
        })
        .await
        .unwrap();
        program
    }

    async fn answers(&self) {
        let socket = self.path().join(".s.PGSQL.6432");
        wait_until("the proxy to listen", BOUND, async || {
            tokio::net::UnixStream::connect(&socket).await.map(drop)
        })
        .await
        .unwrap();
    }

    async fn console(&self) -> Client {
        console(&self.path().join(".s.PGSQL.6432")).await
    }

    async fn predecessor_is(&self, expected: &str) {
        let console = self.console().await;
        wait_until(&format!("the predecessor to have {expected:?}"), BOUND, async || {
            let rows = console.simple_query("SHOW STATE").await.unwrap();
            let row = rows.iter().find_map(|row| match row {
                tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            let left = row.unwrap().get("predecessor").unwrap();
            if left == expected { Ok(()) } else { Err(left.to_owned()) }
        })
        .await
        .unwrap();
    }

    async fn switch(&self, to: &str, epoch: u64) {
        let console = self.console().await;
        for command in [
            format!("WARM {to} EPOCH {epoch}"),
            format!("HOLD EPOCH {epoch} LIMIT 20000"),
            format!("DRAIN EPOCH {epoch} BUDGET 10000"),
            format!("SETTLE EPOCH {epoch} LIMIT 5000"),
            format!("REPOINT {to} EPOCH {epoch}"),
            format!("RELEASE EPOCH {epoch}"),
        ] {
            console.simple_query(&command).await.unwrap();
        }
    }
}

async fn told(client: &Client, command: &str) -> (String, String) {
    let error = client.simple_query(command).await.unwrap_err();
    let db = error.as_db_error().unwrap_or_else(|| panic!("{command}: {error:?}"));
    (db.code().code().to_owned(), db.message().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_while_process_after_process_takes_over_and_sessions_go_on() {
    let stage = Arc::new(Stage::new("").await);
    let mut first = stage.start().await;
    stage.switch("green", 5).await;
    let long = stage.client().await.unwrap();
    long.batch_execute("set work_mem = '5MB'; begin; create temp table t as select 1 as n").await.unwrap();
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let come_and_go = |_| {
        let (stage, stop, count) = (Arc::clone(&stage), Arc::clone(&stop), Arc::clone(&count));
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let client = stage.client().await.unwrap();
                assert_eq!(value(&client, "select who()").await, "green");
                count.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    let coming: Vec<_> = (0..4).map(come_and_go).collect();
    let more = async || {
        let before = count.load(Ordering::SeqCst);
        wait_until("more to come and go", BOUND, async || {
            let now = count.load(Ordering::SeqCst);
            if now > before + 20 { Ok(()) } else { Err(now) }
        })
        .await
        .unwrap();
    };
    more().await;
    let mut second = stage.take_over().await;
    more().await;
    // While the first still has one, the second cannot hold it; nor can the third.
    stage.predecessor_is("1").await;
    let late = stage.client().await.unwrap();
    let mut third = stage.take_over().await;
    more().await;
    stage.predecessor_is("2").await;
    let console = stage.console().await;
    for command in ["WARM blue EPOCH 6", "HOLD EPOCH 6 LIMIT 1000"] {
        let (code, why) = told(&console, command).await;
        assert_eq!(code, "55000");
        assert!(why.contains("still serves 2 connections"), "{why}");
    }
    assert_eq!(value(&long, "select n from t").await, "1");
    assert_eq!(value(&late, "select who()").await, "green");
    assert!(first.is_running() && second.is_running() && third.is_running());
    long.batch_execute("commit").await.unwrap();
    assert_eq!(value(&long, "show work_mem").await, "5MB");
    drop(long);
    first.ends().await;
    drop(late);
    second.ends().await;
    stage.predecessor_is("").await;
    stop.store(true, Ordering::SeqCst);
    for task in coming {
        task.await.unwrap();
    }
    // Route and epoch came along, and the first two have left them alone.
    let (_, why) = told(&console, "HOLD EPOCH 4 LIMIT 1000").await;
    assert_eq!(why, "stale epoch 4: epoch 5 drives this proxy");
    stage.switch("blue", 6).await;
    let mut fourth = stage.take_over().await;
    third.ends().await;
    assert_eq!(value(&stage.client().await.unwrap(), "select who()").await, "blue");
    let term = Command::new("kill").arg(fourth.0.id().to_string()).status();
    assert!(term.unwrap().success());
    fourth.ends().await;
    assert!(!stage.path().join(".s.PGSQL.6432").exists());
    assert!(!stage.path().join("state.json.takeover").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_requests_reach_sessions_of_every_process_before() {
    let stage = Stage::new("").await;
    let _first = stage.start().await;
    let in_first = stage.client().await.unwrap();
    let _second = stage.take_over().await;
    let in_second = stage.client().await.unwrap();
    let _third = stage.take_over().await;
    for client in [&in_first, &in_second] {
        let token = client.cancel_token();
        let sleeping = client.simple_query("select pg_sleep(60)");
        let cancelling = async {
            wait_until("the statement to run", BOUND, async || {
                let running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'";
                let count = stage.blue.sql(running).await.unwrap();
                if count.trim() == "1" { Ok(()) } else { Err(count) }
            })
            .await
            .unwrap();
            token.cancel_query(NoTls).await.unwrap();
        };
        let (slept, ()) =
            tokio::time::timeout(BOUND, async { tokio::join!(sleeping, cancelling) }).await.unwrap();
        assert_eq!(slept.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
        assert_eq!(value(client, "select who()").await, "blue");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_on_the_way_leaves_one_that_serves() {
    let stage = Stage::new("[limits]\nshutdown_ms = 60000\n").await;
    let mut first = stage.start().await;
    let kept = stage.client().await.unwrap();
    // A new process that dies with the sockets in its hands: the old one serves and holds as before.
    let mut dying = tokio::net::UnixStream::connect(stage.path().join("state.json.takeover")).await.unwrap();
    dying.write_all(b"{\"Take\":{\"version\":1}}\n").await.unwrap();
    let mut said = [0; 4096];
    let count = tokio::time::timeout(BOUND, dying.read(&mut said)).await.unwrap().unwrap();
    assert!(said[..count].starts_with(b"{\"Sockets\""), "{:?}", String::from_utf8_lossy(&said[..count]));
    let console = stage.console().await;
    let (code, why) = told(&console, "HOLD EPOCH 1 LIMIT 1000").await;
    assert_eq!((code.as_str(), why.as_str()), ("55000", "another process takes over from this one"));
    assert_eq!(value(&stage.client().await.unwrap(), "select who()").await, "blue");
    drop(dying);
    wait_until("the old process to hold again", BOUND, async || {
        console.simple_query("HOLD EPOCH 1 LIMIT 60000").await.map(drop)
    })
    .await
    .unwrap();
    // Nobody takes over from who holds.
    let said = Program::refused(stage.path(), &["--takeover"]).await;
    assert!(said.contains("clients are held by epoch 1"), "{said}");
    console.simple_query("RELEASE EPOCH 1").await.unwrap();
    stage.switch("green", 2).await;
    assert_eq!(value(&kept, "select who()").await, "green");
    // Without the word nobody comes between.
    let said = Program::refused(stage.path(), &[]).await;
    assert!(said.contains("is used by another proxy that runs"), "{said}");
    // The old process dies with its sessions, after the handover.
    let mut second = stage.take_over().await;
    stage.predecessor_is("1").await;
    first.kill();
    stage.predecessor_is("").await;
    assert!(kept.simple_query("select 1").await.is_err());
    stage.switch("blue", 3).await;
    // The new one dies: who is left in the old one is told, and the next process begins.
    let left = stage.client().await.unwrap();
    let mut third = stage.take_over().await;
    stage.predecessor_is("1").await;
    left.batch_execute("begin").await.unwrap();
    third.kill();
    let _fourth = Program::start(stage.path(), &["--takeover"]);
    stage.answers().await;
    assert_eq!(value(&stage.client().await.unwrap(), "select who()").await, "blue");
    assert!(second.is_running(), "a transaction is open");
    left.batch_execute("commit").await.unwrap();
    second.ends().await;
    assert!(left.simple_query("select 1").await.is_err());
    stage.predecessor_is("").await;
    stage.switch("green", 4).await;
    drop(stage.green);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stays_too_long_is_ended_between_transactions() {
    let stage = Stage::new("[limits]\ntakeover_drain_ms = 500\nshutdown_ms = 60000\n").await;
    let mut first = stage.start().await;
    let (idle, busy) = (stage.client().await.unwrap(), stage.client().await.unwrap());
    busy.batch_execute("begin; create table t (n int)").await.unwrap();
    let _second = stage.take_over().await;
    wait_until(
        "the idle one to be ended",
        BOUND,
        async || {
            if idle.is_closed() { Ok(()) } else { Err("open") }
        },
    )
    .await
    .unwrap();
    assert!(first.is_running(), "a transaction is open");
    busy.batch_execute("insert into t values (1)").await.unwrap();
    busy.batch_execute("commit").await.unwrap();
    first.ends().await;
    assert_eq!(stage.blue.sql("select count(*) from t").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_new_configuration_says_where_is_listened() {
    let stage = Stage::new("").await;
    let text = std::fs::read_to_string(stage.path().join("proxy.toml")).unwrap();
    let load = |text: &str| {
        let path = stage.path().join("other.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path).unwrap()
    };
    let old = Proxy::start(load(&format!("metrics = \"127.0.0.2:0\"\n{text}"))).await.unwrap();
    let (tcp, metrics, socket) =
        (old.addresses()[0], old.metrics().unwrap(), old.socket().unwrap().to_owned());
    let elsewhere = text.replace("unix_dir = \"", "unix_port = 7432\nunix_dir = \"");
    let more = elsewhere.replace("listen = [", "listen = [\"127.0.0.1:0\", ");
    // What cannot be listened on keeps everything as it was.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = std::net::TcpListener::bind(taken).unwrap();
    let refused = load(&elsewhere.replace("listen = [", &format!("listen = [\"{taken}\", ")));
    let error = Proxy::take_over(refused).await.unwrap_err();
    assert!(error.to_string().contains("cannot listen on"), "{error}");
    drop(holder);
    let connects = async |address| tokio::net::TcpStream::connect(address).await.is_ok();
    assert!(connects(tcp).await && connects(metrics).await && socket.exists());
    let new = Proxy::take_over(load(&more)).await.unwrap();
    tokio::time::timeout(BOUND, old.taken_over()).await.unwrap();
    tokio::time::timeout(BOUND, old.retire(std::future::pending())).await.unwrap();
    assert_eq!(new.addresses().len(), 2);
    assert!(new.addresses().contains(&tcp), "{:?} without {tcp}", new.addresses());
    for address in new.addresses() {
        assert!(connects(*address).await, "{address}");
    }
    assert!(!connects(metrics).await, "nobody is to listen there");
    assert!(!socket.exists() && new.socket().unwrap().exists());
    new.shutdown().await;
}
