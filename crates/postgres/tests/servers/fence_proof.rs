//! The heart: after raise and locker wait no commit follows the position that is read, under clients that write in every
//! way they can; and without the locker wait some do, so that the test is known to bite.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgteal_postgres::fence::{self, Fence};
use pgteal_postgres::{Lsn, Session, slot, wal};

use crate::cluster::{ROLE, cluster, majors};
use crate::fence::install;

const ID: &str = "proof234";
const CLIENTS: u64 = 8;

/// Writes in the way of its number until the fence has refused it thirty times.
async fn hammer(client: tokio_postgres::Client, way: u64, written: Arc<AtomicU64>) {
    let one = client.prepare("INSERT INTO app.t SELECT $1, nextval('app.q'), 'x'").await.unwrap();
    let many =
        client.prepare("INSERT INTO app.t SELECT $1, nextval('app.q'), 'x' FROM generate_series(1, 20000)");
    let many = many.await.unwrap();
    let who = i32::try_from(way).unwrap();
    let mut refused = 0;
    while refused < 30 {
        let result = match way % 6 {
            0 => client.execute(&one, &[&who]).await.map(|_| ()),
            1 => client.execute(&many, &[&who]).await.map(|_| ()),
            2 => {
                let sql = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM app.small;
                    INSERT INTO app.t VALUES (2, nextval('app.q'), 'x'); UPDATE app.small SET n = n + 1 WHERE id = 2;
                    COMMIT";
                client.batch_execute(sql).await
            }
            3 => client.batch_execute("UPDATE app.small SET n = n + 1 WHERE id = 3").await,
            4 => {
                let sql = "BEGIN; INSERT INTO app.part VALUES (1, 'x'); INSERT INTO app.part VALUES (2, 'y');
                    DELETE FROM app.part WHERE id = 2; COMMIT";
                client.batch_execute(sql).await
            }
            _ => {
                let sql = "DO $$ BEGIN FOR i IN 1..50 LOOP INSERT INTO app.t VALUES (5, nextval('app.q'), 'x'); END LOOP;
                    END $$";
                client.batch_execute(sql).await
            }
        };
        match result {
            Ok(()) => {
                written.fetch_add(1, Ordering::Relaxed);
            }
            Err(e) => {
                assert_eq!(e.code().map(|c| c.code()), Some("25006"), "client {way}: {e:?}");
                refused += 1;
                let _ = client.batch_execute("ROLLBACK").await;
            }
        }
    }
}

/// Commits of clients that end behind a position.
async fn commits_after(s: &Session, slot: &str, lsn: Lsn) -> i64 {
    let sql = "SELECT count(*) FROM pg_logical_slot_peek_changes($1, NULL, NULL, 'skip-empty-xacts', '1', 'include-xids', '0')
        WHERE data LIKE 'COMMIT%' AND lsn > $2";
    s.within(Duration::from_secs(60))
        .query_one("counting", sql, &[&slot, &lsn])
        .await
        .unwrap()
        .get(0)
        .unwrap()
}

/// One round: hammer, raise, perhaps wait for the lockers, read the position. Returns the commits after it.
async fn round(major: u32, db: &str, s: &Session, fence: &Fence, epoch: i64, wait: bool) -> i64 {
    let slot = format!("{db}_{epoch}");
    slot::create_logical(s, &slot, "test_decoding").await.unwrap();
    let written = Arc::new(AtomicU64::new(0));
    let mut clients = Vec::new();
    for way in 0..CLIENTS {
        let client = cluster(major).client(db).await;
        clients.push(tokio::spawn(hammer(client, way, Arc::clone(&written))));
    }
    tokio::time::sleep(Duration::from_millis(150)).await;
    fence.raise(s, epoch).await.unwrap();
    if wait {
        let lockers = fence::lockers(s).await.unwrap();
        fence::wait_lockers(s, &lockers, Duration::from_secs(20)).await.unwrap();
    }
    let lsn = wal::insert_lsn(s).await.unwrap();
    for client in clients {
        client.await.unwrap();
    }
    assert!(written.load(Ordering::Relaxed) > 20, "{major}: the clients hardly wrote");
    let after = commits_after(s, &slot, lsn).await;
    slot::drop(s, &slot, Duration::from_secs(5)).await.unwrap();
    fence.lower(s, epoch).await.unwrap();
    s.batch("between rounds", "TRUNCATE app.t").await.unwrap();
    after
}

async fn prepare(major: u32, db: &str) -> (Session, Fence) {
    let (_, mut s) = cluster(major).database(db).await;
    let sql = "CREATE SCHEMA app; CREATE SEQUENCE app.q CACHE 100; CREATE TABLE app.t (who int, n bigint, v text);
        CREATE TABLE app.small (id int PRIMARY KEY, n int); INSERT INTO app.small SELECT i, 0 FROM generate_series(1, 9) i;
        CREATE TABLE app.part (id int, v text) PARTITION BY LIST (id);
        CREATE TABLE app.part1 PARTITION OF app.part FOR VALUES IN (1);
        CREATE TABLE app.part2 PARTITION OF app.part FOR VALUES IN (2)";
    s.batch("setup", sql).await.unwrap();
    let fence = Fence::new(ID, ROLE);
    install(&fence, &mut s).await;
    (s, fence)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_commits_after_the_fence() {
    for major in majors() {
        let (s, fence) = prepare(major, "proof_holds").await;
        for epoch in 1..=3 {
            assert_eq!(
                round(major, "proof_holds", &s, &fence, epoch, true).await,
                0,
                "{major}, round {epoch}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_locker_wait_the_proof_finds_late_commits() {
    let major = *majors().last().unwrap();
    let (s, fence) = prepare(major, "proof_bites").await;
    for epoch in 1..=20 {
        if round(major, "proof_bites", &s, &fence, epoch, false).await > 0 {
            return;
        }
    }
    panic!("20 rounds without the locker wait and no late commit: the proof proves nothing");
}
