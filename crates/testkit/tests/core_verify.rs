//! Verification of two real servers, quiet and while one is written to and the other follows: what is equal is found
//! equal under load, and every falsified row is found by its key.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pgteal_core::progress::silent;
use pgteal_core::verify::{Effort, Outcome, Quiet, Report, Result, SyncPoint, VerifyError, verify};
use pgteal_postgres::{ConnInfo, Purpose, Server, marker, schema};
use pgteal_testkit::{Cluster, wait_until};

const TABLES: &str = "
    create table quiet (id int primary key, v text, at timestamptz default now(), f float8, doc jsonb, b bytea);
    create table hot (id int primary key, n bigint not null default 0, pad text);
    create table grow (id bigint primary key generated always as identity, who int, v text);
    create table nokey (a int, b text); alter table nokey replica identity full;
    create table parted (id int, p int, v text, primary key (id, p)) partition by list (p);
    create table parted_1 partition of parted for values in (1); create table parted_2 partition of parted for values in (2);
    create unlogged table scratch (a int); create materialized view mv as select 1 as x;";

const ROWS: &str = "
    insert into quiet select i, 'v' || i, '2026-01-01'::timestamptz + i * interval '1 min', i / 7.0, jsonb_build_object('a', i),
      decode(md5(i::text), 'hex') from generate_series(1, 5000) i;
    insert into hot select i, 0, repeat('x', 300) from generate_series(1, 400) i;
    insert into nokey select i % 5, 'dup' from generate_series(1, 50) i;
    insert into parted select i, 1 + i % 2, 'p' from generate_series(1, 300) i;";

struct Two {
    clusters: (Cluster, Cluster),
    blue: Server,
    green: Server,
}

async fn two() -> Two {
    let (blue, green) = tokio::join!(Cluster::start_new(15), Cluster::start_new(18));
    let (blue, green) = (blue.unwrap(), green.unwrap());
    let server = |name: &str, c: &Cluster| {
        Server::new(name, ConnInfo::at("127.0.0.1", c.port(), "postgres").with_database("app")).unwrap()
    };
    for cluster in [&blue, &green] {
        cluster.sql("create database app").await.unwrap();
        cluster.sql_in("app", TABLES).await.unwrap();
    }
    let (a, b) = (server("blue", &blue), server("green", &green));
    for server in [&a, &b] {
        schema::ensure(&server.warm("app").await.unwrap(), "abcd2345").await.unwrap();
    }
    Two { blue: a, green: b, clusters: (blue, green) }
}

fn names() -> Vec<String> {
    vec!["app".to_owned()]
}

fn find<'a>(report: &'a Report, table: &str) -> &'a Outcome {
    let found = report.tables.iter().find(|t| t.table.ends_with(&format!(".{table}")));
    &found.unwrap_or_else(|| panic!("{table} is not in {report:#?}")).outcome
}

#[tokio::test]
async fn quiet_servers_are_compared_row_by_row() {
    let two = two().await;
    two.clusters.0.sql_in("app", ROWS).await.unwrap();
    two.clusters.1.sql_in("app", ROWS).await.unwrap();
    let look =
        async || verify(&two.blue, &two.green, &names(), &Quiet, &Effort::QUIET, &silent).await.unwrap();
    let report = look().await;
    assert!(report.is_equal(), "{report:#?}");
    assert_eq!(report.rows(), 5000 + 400 + 50 + 300);
    assert!(matches!(find(&report, "scratch"), Outcome::Skipped { .. }));
    assert!(matches!(find(&report, "mv"), Outcome::Skipped { .. }));
    for (falsify, table, rows, keys) in [
        ("update quiet set doc = '{}' where id = 77", "quiet", Some(1), vec!["id=77"]),
        ("delete from quiet where id = 78", "quiet", Some(2), vec!["id=77", "id=78"]),
        ("insert into parted values (-1, 2, 'ghost')", "parted_2", Some(1), vec!["id=-1, p=2"]),
        ("delete from nokey where ctid = (select min(ctid) from nokey)", "nokey", None, vec![]),
    ] {
        two.clusters.1.sql_in("app", falsify).await.unwrap();
        let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
        assert_eq!(*find(&look().await, table), Outcome::Mismatched { rows, keys }, "{falsify}");
    }
    two.clusters.1.sql_in("app", "drop table hot; create table stranger (a int primary key)").await.unwrap();
    let report = look().await;
    assert_eq!(*find(&report, "hot"), Outcome::Missing { on: "green".to_owned() });
    assert_eq!(*find(&report, "stranger"), Outcome::Missing { on: "blue".to_owned() });
    assert!(matches!(find(&report, "parted_1"), Outcome::Matched), "others are not drawn in");
}

/// A marker's round trip through the stream.
struct Marker<'a>(&'a Two);

impl Marker<'_> {
    async fn round_trip(&self, database: &str) -> Result<()> {
        let n = marker::write(&self.0.blue.warm(database).await?).await?;
        let green = self.0.green.warm(database).await?;
        let wait = marker::wait(&green, n, Duration::from_secs(20)).await;
        wait.map_err(|e| VerifyError::NotInStep { database: database.to_owned(), reason: e.to_string() })
    }
}

impl SyncPoint for Marker<'_> {
    fn reach<'a, 'b, 'c>(&'a self, database: &'b str) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(self.round_trip(database))
    }
}

async fn replicate(two: &Two) {
    two.clusters.0.sql_in("app", ROWS).await.unwrap();
    two.clusters.0.sql_in("app", "create publication p for all tables").await.unwrap();
    let sql = format!("create subscription s connection '{}' publication p", two.clusters.0.conninfo("app"));
    two.clusters.1.sql_in("app", &sql).await.unwrap();
    let left = "select count(*) from pg_subscription_rel where srsubstate <> 'r'";
    let ready = async || match two.clusters.1.sql_in("app", left).await.unwrap().trim() {
        "0" => Ok(Some(())),
        n => Err(format!("{n} tables are not ready")),
    };
    wait_until("every table to be in step", Duration::from_secs(60), ready).await.unwrap();
}

/// Sessions that write without pause until told to stop.
fn hammer(two: &Two, stop: &Arc<AtomicBool>, count: &Arc<AtomicU64>) -> Vec<tokio::task::JoinHandle<()>> {
    let one = |who: i64| {
        let (server, stop, count) = (two.blue.clone(), Arc::clone(stop), Arc::clone(count));
        tokio::spawn(async move {
            let s = server.connect("app", Purpose::long("load")).await.unwrap();
            let mut seed = who;
            while !stop.load(Ordering::Relaxed) {
                seed = (seed * 1_103_515_245 + 12_345) & 0x7fff_ffff;
                // Rows 1 to 300 of 400 are busy; row 1 all the time.
                let id = if seed % 2 == 0 { 1 } else { 1 + seed % 300 };
                let sql = format!(
                    "update public.hot set n = n + 1 where id = {id}; insert into public.grow (who, v) values ({who}, 'x');
                     delete from public.grow where id = {}; update public.nokey set b = 'u{seed}' where a = {}",
                    seed % 1000,
                    seed % 5
                );
                s.batch("load", &sql).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                // One apply worker must keep up with three writers.
                tokio::time::sleep(Duration::from_millis(6)).await;
            }
        })
    };
    (0..3).map(one).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_equal_is_equal_and_a_falsified_row_is_named() {
    let two = two().await;
    replicate(&two).await;
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = hammer(&two, &stop, &count);
    let look = async || {
        verify(&two.blue, &two.green, &names(), &Marker(&two), &Effort::LIVE, &silent).await.unwrap()
    };
    for _ in 0..3 {
        let report = look().await;
        assert_eq!(report.mismatched().count(), 0, "{report:#?}");
        assert_eq!(*find(&report, "quiet"), Outcome::Matched);
        assert!(
            matches!(find(&report, "hot"), Outcome::Matched | Outcome::Unsettled { rows: Some(1..=3) }),
            "{report:#?}"
        );
        assert!(matches!(find(&report, "grow"), Outcome::Matched), "{report:#?}");
    }
    let falsify = "update quiet set v = 'false' where id = 4000; update hot set pad = 'false' where id = 350;
        delete from hot where id = 351; insert into grow (id, who) overriding system value values (-5, 0)";
    two.clusters.1.sql_in("app", falsify).await.unwrap();
    let before = count.load(Ordering::Relaxed);
    let report = look().await;
    assert!(count.load(Ordering::Relaxed) > before + 10, "there was load meanwhile");
    let mismatch = |keys: &[&str]| Outcome::Mismatched {
        rows: Some(keys.len() as u64),
        keys: keys.iter().map(|k| (*k).to_owned()).collect(),
    };
    assert_eq!(*find(&report, "quiet"), mismatch(&["id=4000"]));
    assert_eq!(*find(&report, "hot"), mismatch(&["id=350", "id=351"]));
    assert_eq!(*find(&report, "grow"), mismatch(&["id=-5"]));
    assert_eq!(*find(&report, "parted_1"), Outcome::Matched);
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
}

/// Makes the follower late by design: between two calls a lock on green keeps changes of `hot` from being applied, and
/// row 9 changes on blue after each call, or before and after it.
struct Scripted<'a> {
    marker: Marker<'a>,
    lock: tokio_postgres::Client,
    also_before: bool,
}

impl Scripted<'_> {
    async fn change(&self) {
        self.marker.0.clusters.0.sql_in("app", "update hot set n = n + 1 where id = 9").await.unwrap();
    }

    async fn script(&self, database: &str) -> Result<()> {
        if self.also_before {
            self.change().await;
        }
        self.lock.batch_execute("rollback").await.unwrap();
        self.marker.reach(database).await?;
        self.lock.batch_execute("begin; lock table hot in share row exclusive mode").await.unwrap();
        self.change().await;
        Ok(())
    }
}

impl SyncPoint for Scripted<'_> {
    fn reach<'a, 'b, 'c>(&'a self, database: &'b str) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(self.script(database))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_follower_is_waited_for_and_an_ever_busy_row_is_unsettled() {
    let two = two().await;
    replicate(&two).await;
    for (also_before, expected) in [(false, Outcome::Matched), (true, Outcome::Unsettled { rows: Some(1) })] {
        let lock = two.clusters.1.connect("app").await.unwrap();
        let sync = Scripted { marker: Marker(&two), lock, also_before };
        let effort = Effort { jobs: 1, attempts: 4, ..Effort::LIVE };
        let report = verify(&two.blue, &two.green, &names(), &sync, &effort, &silent).await.unwrap();
        assert_eq!(*find(&report, "hot"), expected);
        assert_eq!(report.mismatched().count(), 0);
    }
}

/// What never waits for the follower: the proof that waiting is needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_wait_a_late_follower_looks_false() {
    let two = two().await;
    replicate(&two).await;
    two.clusters.1.sql_in("app", "alter subscription s disable").await.unwrap();
    two.clusters.0.sql_in("app", "update hot set n = 1 where id = 9").await.unwrap();
    let report = verify(&two.blue, &two.green, &names(), &Quiet, &Effort::LIVE, &silent).await.unwrap();
    let keys = vec!["id=9".to_owned()];
    assert_eq!(*find(&report, "hot"), Outcome::Mismatched { rows: Some(1), keys });
}
