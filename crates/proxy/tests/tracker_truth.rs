//! What the transaction tracker believes, against what real servers do: raw messages in, and the server's own word
//! (`pg_stat_activity`) on whether the session is idle. The model in `pgteal-wire` rests on these facts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use bytes::BytesMut;
use pgteal_proxy::auth::{Credentials, Target, Upstream, log_in};
use pgteal_proxy::config::{ServerConfig, SslMode};
use pgteal_testkit::{Cluster, required_majors};
use pgteal_wire::frame;
use pgteal_wire::message::frontend::{put_bind, put_execute, put_parse, put_query};
use pgteal_wire::message::put;
use pgteal_wire::startup::{ProtocolVersion, StartupMessage};
use pgteal_wire::tracker::Tracker;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LIMIT: Duration = Duration::from_secs(10);

struct Session {
    upstream: Upstream,
    tracker: Tracker,
    pid: i32,
    replies: String,
}

impl Session {
    async fn open(cluster: &Cluster) -> Self {
        let server = ServerConfig {
            host: cluster.socket_dir().display().to_string(),
            port: cluster.port(),
            sslmode: SslMode::Disable,
            ..ServerConfig::default()
        };
        let startup =
            StartupMessage::new(ProtocolVersion::V3_0, [("user", "postgres"), ("database", "postgres")]);
        let target = Target::new(&server, 1).unwrap();
        let upstream = log_in(&target, &startup, &Credentials::None, LIMIT).await.unwrap();
        let pid = upstream.cancel_key.as_ref().unwrap().pid();
        Self { upstream, tracker: Tracker::new(), pid, replies: String::new() }
    }

    /// Sends one step: `Q sql`, `P sql`, `B`, `E`, `D`, `S`, `H`, `d data`, `c`, `f`; `?G` waits for a server message.
    async fn step(&mut self, step: &str) {
        let (tag, text) = step.split_once(' ').unwrap_or((step, ""));
        let mut out = BytesMut::new();
        match tag.as_bytes() {
            [b'?', wanted] => return self.read_until(char::from(*wanted)).await,
            b"Q" => put_query(&mut out, text),
            b"P" => put_parse(&mut out, b"", text.as_bytes()),
            b"B" => put_bind::<&[u8]>(&mut out, b"", &[]),
            b"E" => put_execute(&mut out),
            b"D" => put(&mut out, b'D', |out| out.extend_from_slice(b"S\0")),
            b"d" => put(&mut out, b'd', |out| out.extend_from_slice(format!("{text}\n").as_bytes())),
            b"f" => put(&mut out, b'f', |out| out.extend_from_slice(b"given up\0")),
            [tag] => put(&mut out, *tag, |_| {}),
            other => panic!("{other:?}"),
        }
        self.tracker.client(tag.as_bytes()[0]);
        self.upstream.stream.write_all(&out).await.unwrap();
        self.upstream.stream.flush().await.unwrap();
    }

    fn take(&mut self) {
        while let Some(message) = frame::take(&mut self.upstream.leftover, 1 << 20).unwrap() {
            self.tracker.server(message.tag, message.body());
            self.replies.push(char::from(message.tag));
        }
    }

    async fn read_until(&mut self, wanted: char) {
        while !self.replies.contains(wanted) {
            let read = self.upstream.stream.read_buf(&mut self.upstream.leftover);
            assert_ne!(
                tokio::time::timeout(LIMIT, read).await.unwrap().unwrap(),
                0,
                "closed: {}",
                self.replies
            );
            self.take();
        }
    }

    /// Reads until nothing comes any more; true when something came.
    async fn read_quiet(&mut self) -> bool {
        let before = self.replies.len();
        let quiet = Duration::from_millis(40);
        while let Ok(read) =
            tokio::time::timeout(quiet, self.upstream.stream.read_buf(&mut self.upstream.leftover)).await
        {
            assert_ne!(read.unwrap(), 0, "closed: {}", self.replies);
            self.take();
        }
        self.replies.len() > before
    }

    /// Gives the server's own state of the session once it waits for the client and has nothing more to say: the same
    /// state twice, with silence in between.
    async fn settle(&mut self, cluster: &Cluster) -> String {
        let sql =
            format!("SELECT state, wait_event, state_change FROM pg_stat_activity WHERE pid = {}", self.pid);
        let mut last = String::new();
        for _ in 0..100 {
            let spoke = self.read_quiet().await;
            let now = cluster.sql(&sql).await.unwrap();
            if !spoke && now == last && now.contains("|ClientRead|") {
                return now.split('|').next().unwrap().to_owned();
            }
            last = now;
        }
        panic!("the server does not come to rest: {last}, answered {}", self.replies);
    }
}

/// Steps, and the server messages they bring (ParameterStatus and notices left out).
const TABLE: &[(&str, &str)] = &[
    ("Q select 1", "TDCZ"),
    ("Q begin", "CZ"),
    ("Q begin;Q nonsense;Q select 1", "CZEZEZ"),
    ("P select 1;B;E;S", "12DCZ"),
    // No Sync: the transaction stays open (the answer waits in the server's buffer).
    ("P select 1;B;E;H", "12DC"),
    // After an error everything up to Sync is ignored, Query too.
    ("P nonsense;B;E;Q select 1;S", "EZ"),
    ("P nonsense;B;E;H", "E"),
    // A Query ends what was not synced.
    ("P select 1;B;E;Q select 2", "12DCTDCZ"),
    // The commit itself fails at Sync.
    ("P insert into deferred values (1);B;E;S", "12CEZ"),
    ("Q copy t from stdin;?G;d 1;c", "GCZ"),
    ("Q copy t from stdin;?G;d 1", "G"),
    ("Q copy t from stdin;?G;S;H;d 1;c", "GCZ"),
    ("Q copy t from stdin;?G;d x;c", "GEZ"),
    ("Q copy t from stdin;?G;f", "GEZ"),
    // As libpq: Sync with Execute, swallowed by the copy-in mode, and another after CopyDone.
    ("P copy t from stdin;B;E;S;?G;d 1;c;S", "12GCZ"),
    ("P copy t from stdin;B;E;S;?G;d 1;c", "12G"),
    ("P copy t from stdin;B;E;S;?G;d 1;c;H", "12GC"),
    ("P copy t from stdin;B;E;S;?G;d x;c;S", "12GEZ"),
    // Eager: the data is sent before CopyInResponse.
    ("P copy t from stdin;B;E;d 1;c;S", "12GCZ"),
    // Refused before it begins: both Syncs are answered, the data is ignored.
    ("P copy nowhere from stdin;B;E;S;d 1;c;S", "12EZZ"),
    // Refused after CopyInResponse and before the next read: the surplus answer.
    ("P copy refusing from stdin;B;E;S;?E;d 1;c;S", "12GEZZ"),
    // COPY data without a COPY.
    ("d 1;c;f;Q select 1", "TDCZ"),
    ("Q copy t to stdout", "HcCZ"),
    ("S;S;H", "ZZ"),
    ("Q ;Q select 1", "IZTDCZ"),
];

async fn agree(major: u16) {
    let cluster = Cluster::start_new(major).await.unwrap();
    cluster
        .sql(
            "CREATE TABLE t (a int);
             CREATE TABLE parent (a int PRIMARY KEY);
             CREATE TABLE deferred (a int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
             CREATE TABLE refusing (a int);
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
             CREATE TRIGGER refuse BEFORE INSERT ON refusing FOR EACH STATEMENT EXECUTE FUNCTION refuse();",
        )
        .await
        .unwrap();
    for (steps, replies) in TABLE {
        cluster.sql("TRUNCATE t").await.unwrap();
        let mut session = Session::open(&cluster).await;
        for step in steps.split(';').map(|step| step.trim_start()) {
            session.step(step).await;
        }
        let state = session.settle(&cluster).await;
        let what = format!("{major}: {steps} answered {}, {state}: {:?}", session.replies, session.tracker);
        let seen: String = session.replies.chars().filter(|c| !"SNA".contains(*c)).collect();
        assert_eq!(&seen, replies, "{what}");
        assert_eq!(session.tracker.at_boundary(), state == "idle", "{what}");
        assert!(!session.tracker.lost(), "{what}");
        assert!(state != "idle" || session.tracker.outstanding() == 0, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tracker_and_servers_agree() {
    for major in required_majors() {
        agree(major).await;
    }
}
