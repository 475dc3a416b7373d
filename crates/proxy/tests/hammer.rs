//! Many sessions that never stop, while the route goes to and fro: nobody sees an error, every acknowledged row is on
//! exactly one side, and no transaction runs on the side that the route does not say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use world::World;

const SCHEMA: &str = "create table rows (session int, n int, turn int, primary key (session, n))";
const SWITCHES: u64 = 30;

/// What one session did: acknowledged numbers, each with the turn that it saw.
type Done = Vec<(i32, i32)>;

struct Clock {
    stop: AtomicBool,
    /// How many switches have begun, and how many have ended: between the two either side may answer.
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Clock {
    fn check(&self, before: u64, side: &str) {
        let after = self.begun.load(Ordering::SeqCst);
        let expected = |turn: u64| if turn.is_multiple_of(2) { "blue" } else { "green" };
        assert!(
            (before..=after).any(|turn| side == expected(turn)),
            "{side} between switch {before} and {after}"
        );
    }
}

#[derive(Clone, Copy)]
enum Style {
    Prepared,
    Unprepared,
    Simple,
    Pipelined,
    Settings,
}

const INSERT: &str = "insert into rows values ($1, $2, 0) returning who()";

async fn work(client: Client, session: i32, style: Style, clock: Arc<Clock>) -> Done {
    let mut done = Vec::new();
    let prepared = client.prepare(INSERT).await.unwrap();
    let mut n = 0;
    while !clock.stop.load(Ordering::SeqCst) {
        let before = clock.ended.load(Ordering::SeqCst);
        let side: String = match style {
            Style::Prepared => {
                client.batch_execute("begin").await.unwrap();
                let side = client.query_one(&prepared, &[&session, &n]).await.unwrap().get(0);
                client.batch_execute("commit").await.unwrap();
                side
            }
            Style::Unprepared => client.query_one(INSERT, &[&session, &n]).await.unwrap().get(0),
            Style::Simple => {
                let sql = format!("begin; insert into rows values ({session}, {n}, 0); commit; select who()");
                client.batch_execute(&sql).await.unwrap();
                n += 1;
                done.push((session, n - 1));
                continue;
            }
            Style::Pipelined => {
                let (m, o) = (n + 1, n + 2);
                let params: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&session, &m];
                let params2: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&session, &o];
                let params0: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&session, &n];
                let (a, b, c) = futures::future::join3(
                    client.query_one(&prepared, &params0),
                    client.query_one(&prepared, &params),
                    client.query_one(&prepared, &params2),
                )
                .await;
                clock.check(before, a.unwrap().get(0));
                clock.check(before, b.unwrap().get(0));
                done.extend([(session, n), (session, m)]);
                n = o;
                c.unwrap().get(0)
            }
            Style::Settings => {
                client
                    .batch_execute(&format!("set application_name = 'n{n}'; set my.n = '{n}'"))
                    .await
                    .unwrap();
                let row = client
                    .query_one("select current_setting('my.n'), current_setting('application_name')", &[])
                    .await
                    .unwrap();
                assert_eq!(
                    (row.get::<_, String>(0), row.get::<_, String>(1)),
                    (n.to_string(), format!("n{n}"))
                );
                client.query_one(&prepared, &[&session, &n]).await.unwrap().get(0)
            }
        };
        clock.check(before, &side);
        done.push((session, n));
        n += 1;
        if session % 4 == 0 {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_thirty_switches() {
    let world = World::new(SCHEMA).await;
    let clock = Arc::new(Clock { stop: false.into(), begun: 0.into(), ended: 0.into() });
    let styles = [Style::Prepared, Style::Unprepared, Style::Simple, Style::Pipelined, Style::Settings];
    let mut tasks = Vec::new();
    for session in 0..30 {
        let style = styles[session as usize % styles.len()];
        tasks.push(tokio::spawn(work(world.client().await, session, style, Arc::clone(&clock))));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    let mut repoints = Vec::new();
    for epoch in 1..=SWITCHES {
        let to = if epoch % 2 == 1 { "green" } else { "blue" };
        let warm = world.command(&format!("WARM {to} EPOCH {epoch}")).await;
        assert_eq!((warm["failed"].as_str(), warm["pinned"].as_str()), ("0", "0"), "{warm:?}");
        world.command(&format!("HOLD EPOCH {epoch} LIMIT 20000")).await;
        clock.begun.store(epoch, Ordering::SeqCst);
        assert_eq!(world.command(&format!("DRAIN EPOCH {epoch} BUDGET 10000")).await["busy"], "0");
        let settled = world.command(&format!("SETTLE EPOCH {epoch} LIMIT 10000")).await;
        assert_eq!((settled["stale"].as_str(), settled["failed"].as_str()), ("0", "0"), "{settled:?}");
        let written = |cluster| async move {
            pgteal_testkit::Cluster::sql(cluster, "select count(*) from rows").await.unwrap()
        };
        let (quiet, again) = (written(&world.blue).await, written(&world.green).await);
        let repointed = world.command(&format!("REPOINT {to} EPOCH {epoch}")).await;
        assert_eq!((repointed["moved"].as_str(), repointed["cold"].as_str()), ("30", "0"), "{repointed:?}");
        repoints.push(repointed["us"].parse::<u64>().unwrap());
        assert_eq!(
            (quiet, again),
            (written(&world.blue).await, written(&world.green).await),
            "held means held"
        );
        world.command(&format!("RELEASE EPOCH {epoch}")).await;
        clock.ended.store(epoch, Ordering::SeqCst);
    }
    let took = began.elapsed();
    clock.stop.store(true, Ordering::SeqCst);
    let mut acknowledged = 0;
    let mut there: HashMap<(i32, i32), usize> = HashMap::new();
    for cluster in [&world.blue, &world.green] {
        let client = cluster.connect("postgres").await.unwrap();
        // The tasks still run their last transaction: read after they have ended.
        if acknowledged == 0 {
            for task in tasks.drain(..) {
                let done = tokio::time::timeout(Duration::from_secs(20), task).await.expect("stuck").unwrap();
                acknowledged += done.len();
                there.extend(done.into_iter().map(|row| (row, 0)));
            }
        }
        for row in client.query("select session, n from rows", &[]).await.unwrap() {
            *there.entry((row.get(0), row.get(1))).or_insert(100) += 1;
        }
    }
    let wrong: Vec<_> = there.iter().filter(|(_, count)| **count != 1).collect();
    assert!(
        wrong.is_empty(),
        "{} of {acknowledged}: {:?}",
        wrong.len(),
        wrong.iter().take(5).collect::<Vec<_>>()
    );
    assert!(acknowledged > 1000, "{acknowledged}");
    let state = world.command("SHOW STATE").await;
    assert_eq!((state["clients"].as_str(), state["busy"].as_str()), ("0", "0"), "{state:?}");
    let stats = world.command("SHOW STATS").await;
    assert_eq!((stats["closed_by_proxy"].as_str(), stats["upstream_lost"].as_str()), ("0", "0"), "{stats:?}");
    repoints.sort_unstable();
    eprintln!(
        "{SWITCHES} switches in {took:?}, {acknowledged} rows, repoint of 30 sessions: median {} us, worst {} us",
        repoints[repoints.len() / 2],
        repoints[repoints.len() - 1]
    );
}
