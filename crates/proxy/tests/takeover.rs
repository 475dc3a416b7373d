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
use tokio::net::UnixStream;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use world::{console, value};

const BOUND: Duration = Duration::from_secs(60);

struct Program(Child);

impl Program {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgteal-proxy"));
        command.arg("--config").arg(dir.join("proxy.toml")).args(args);
        let log = std::fs::File::options().append(true).create(true).open(dir.join("log")).unwrap();
        Self(command.stderr(Stdio::from(log)).spawn().unwrap())
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

    fn terminate(&self) {
        let term = Command::new("kill").arg(self.0.id().to_string()).status();
        assert!(term.unwrap().success());
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
        wait_until("the proxy to listen", BOUND, async || UnixStream::connect(&socket).await.map(drop))
            .await
            .unwrap();
    }

    async fn console(&self) -> Client {
        console(&self.path().join(".s.PGSQL.6432")).await
    }

    /// The sockets' files: that of clients, that of takeovers.
    fn has_files(&self) -> (bool, bool) {
        (self.path().join(".s.PGSQL.6432").exists(), self.path().join("state.json.takeover").exists())
    }

    /// Half a takeover: the old process has sent its sockets.
    async fn asked(&self) -> UnixStream {
        let mut asking = UnixStream::connect(self.path().join("state.json.takeover")).await.unwrap();
        asking.write_all(b"{\"Take\":{\"version\":1}}\n").await.unwrap();
        assert!(heard(&mut asking).await.starts_with("{\"Sockets\""));
        asking
    }

    async fn logged(&self, what: &str) {
        wait_until(what, BOUND, async || {
            let log = std::fs::read_to_string(self.path().join("log")).unwrap();
            if log.contains(what) { Ok(()) } else { Err(log) }
        })
        .await
        .unwrap();
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

async fn heard(asking: &mut UnixStream) -> String {
    let mut said = [0; 4096];
    let count = tokio::time::timeout(BOUND, asking.read(&mut said)).await.unwrap().unwrap();
    String::from_utf8_lossy(&said[..count]).into_owned()
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
    fourth.terminate();
    fourth.ends().await;
    assert_eq!(stage.has_files(), (false, false));
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
    let dying = stage.asked().await;
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
    // Nobody speaks with the one that is left, and nobody is held as long as it lives.
    stage.logged("ending, for the successor is gone").await;
    stage.predecessor_is("0").await;
    let (code, why) = told(&stage.console().await, "HOLD EPOCH 4 LIMIT 1000").await;
    assert!(code == "55000" && why.contains("that served before this one has not ended"), "{code} {why}");
    assert!(second.is_running(), "a transaction is open");
    left.batch_execute("commit").await.unwrap();
    second.ends().await;
    assert!(left.simple_query("select 1").await.is_err());
    stage.predecessor_is("").await;
    stage.switch("green", 4).await;
    drop(stage.green);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_told_to_end_first_brings_a_takeover_to_its_end() {
    let stage = Stage::new("").await;
    for goes_on in [true, false] {
        let mut old = stage.start().await;
        let mut asking = stage.asked().await;
        old.terminate();
        stage.logged("ending").await;
        std::fs::remove_file(stage.path().join("log")).unwrap();
        if goes_on {
            asking.write_all(b"\"Ready\"\n").await.unwrap();
            let said = heard(&mut asking).await;
            assert!(said.starts_with("{\"Yours\""), "{said}");
        } else {
            assert!(old.is_running());
            drop(asking);
        }
        old.ends().await;
        // Whose the sockets are, his are the files.
        assert_eq!(stage.has_files(), (goes_on, goes_on));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_while_the_old_process_ends_waits_for_it() {
    let stage = Stage::new("[limits]\nshutdown_ms = 60000\n").await;
    let mut old = stage.start().await;
    let busy = stage.client().await.unwrap();
    busy.batch_execute("begin; create table t (n int)").await.unwrap();
    old.terminate();
    let control = stage.path().join("state.json.takeover");
    wait_until("the old process to take nobody", BOUND, async || match UnixStream::connect(&control).await {
        Ok(_) => Err("connected"),
        Err(_) => Ok(()),
    })
    .await
    .unwrap();
    let mut new = Program::start(stage.path(), &["--takeover"]);
    // Longer than a process waits that has found nobody to ask.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(old.is_running() && new.is_running());
    busy.batch_execute("commit").await.unwrap();
    old.ends().await;
    stage.answers().await;
    assert_eq!(value(&stage.client().await.unwrap(), "select count(*) from t").await, "0");
    assert_eq!(stage.has_files(), (true, true));
    stage.switch("green", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_takes_over_when_a_hold_came_to_its_limit_until_somebody_releases() {
    let stage = Stage::new("").await;
    let mut old = stage.start().await;
    let console = stage.console().await;
    for command in ["WARM green EPOCH 1", "HOLD EPOCH 1 LIMIT 100 RUN 'r'"] {
        console.simple_query(command).await.unwrap();
    }
    stage.logged("the hold reached its own limit").await;
    let said = Program::refused(stage.path(), &["--takeover"]).await;
    assert!(said.contains("the hold by epoch 1 (run 'r') came to its limit"), "{said}");
    // So whoever drives it can go on.
    stage.switch("green", 1).await;
    let _new = stage.take_over().await;
    old.ends().await;
    assert_eq!(value(&stage.client().await.unwrap(), "select who()").await, "green");
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
    let stage = Stage::new("[reads]\nlisten = [\"127.0.0.3:0\"]\n").await;
    let text = std::fs::read_to_string(stage.path().join("proxy.toml")).unwrap();
    let load = |text: &str| {
        let path = stage.path().join("other.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path).unwrap()
    };
    let old = Proxy::start(load(&format!("metrics = \"127.0.0.2:0\"\n{text}"))).await.unwrap();
    let (tcp, metrics, socket) =
        (old.addresses()[0], old.metrics().unwrap(), old.socket().unwrap().to_owned());
    let readers = old.read_addresses().to_owned();
    let elsewhere = text.replace("unix_dir = \"", "unix_port = 7432\nunix_dir = \"");
    let more = elsewhere.replacen("listen = [", "listen = [\"127.0.0.1:0\", ", 1);
    // What cannot be listened on keeps everything as it was.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = std::net::TcpListener::bind(taken).unwrap();
    let refused = load(&elsewhere.replacen("listen = [", &format!("listen = [\"{taken}\", "), 1));
    let error = Proxy::take_over(refused).await.unwrap_err();
    assert!(error.to_string().contains("cannot listen on"), "{error}");
    drop(holder);
    // Where a state file's path is too long for a socket beside it, nobody can be asked.
    let directory = stage.path().join("d".repeat(120));
    std::fs::create_dir(&directory).unwrap();
    let alone = elsewhere.replace("/state.json", &format!("/{}/state.json", "d".repeat(120)));
    Proxy::take_over(load(&alone)).await.unwrap().shutdown().await;
    let connects = async |address| tokio::net::TcpStream::connect(address).await.is_ok();
    assert!(connects(tcp).await && connects(metrics).await && socket.exists());
    let new = Proxy::take_over(load(&more)).await.unwrap();
    tokio::time::timeout(BOUND, old.taken_over()).await.unwrap();
    tokio::time::timeout(BOUND, old.retire(std::future::pending())).await.unwrap();
    assert_eq!((new.addresses().len(), new.read_addresses()), (2, &readers[..]));
    assert!(new.addresses().contains(&tcp), "{:?} without {tcp}", new.addresses());
    for address in new.addresses().iter().chain(&readers) {
        assert!(connects(*address).await, "{address}");
    }
    assert!(!connects(metrics).await, "nobody is to listen there");
    assert!(!socket.exists() && new.socket().unwrap().exists());
    // What another process may be about to serve by is not removed.
    let (_asking, socket) = (stage.asked().await, new.socket().unwrap().to_owned());
    drop(new);
    assert!(socket.exists() && stage.has_files().1);
}
