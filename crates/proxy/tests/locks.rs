//! Session advisory locks go with their sessions, as deep as they were held, and nobody else has them at any instant.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use pgteal_testkit::Cluster;
use tokio_postgres::Client;
use world::{World, value};

const SESSIONS: usize = 20;
const KEYS: i64 = 10;

/// What is held on a server: keys and modes, in their order.
async fn held(server: &Cluster) -> String {
    let sql = "select coalesce(string_agg(format('%s:%s:%s %s', classid, objid, objsubid, mode), ',' \
               order by classid, objid, objsubid, mode), '') from pg_locks where locktype = 'advisory'";
    server.sql(sql).await.unwrap()
}

/// The ways in which one session holds one key: exclusively by one, or shared by several, up to three times.
fn way(session: usize, key: i64) -> Option<(&'static str, u32)> {
    let depth = u32::try_from((session + usize::try_from(key).unwrap()) % 3 + 1).unwrap();
    match key {
        // Ten keys that all share, ten that one has.
        0..5 => session.is_multiple_of(2).then_some(("_shared", depth)),
        _ => (i64::try_from(session).unwrap() == key).then_some(("", depth)),
    }
}

/// A key in one of its forms, the largest and smallest numbers among them.
fn spelled(key: i64) -> String {
    match key % 3 {
        0 => format!("{}::bigint", (key - 4) * 4_611_686_018_427_387),
        1 => format!("{key}, {}", i32::MIN),
        _ => format!("-{key}, {key}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_are_held_as_often_as_they_were_and_unlocked_as_often() {
    let world = World::new("").await;
    let mut clients = Vec::new();
    for session in 0..SESSIONS {
        let client = world.client().await;
        for key in 0..KEYS {
            let Some((shared, depth)) = way(session, key) else { continue };
            for _ in 0..depth {
                let sql = format!("select pg_advisory_lock{shared}({})", spelled(key));
                client.simple_query(&sql).await.unwrap();
            }
        }
        clients.push(client);
    }
    let before = held(&world.blue).await;
    assert!(before.contains("ShareLock") && before.contains("ExclusiveLock"));
    for (epoch, to) in [(1, "green"), (2, "blue"), (3, "green")] {
        let warm = world.command(&format!("WARM {to} EPOCH {epoch}")).await;
        assert_eq!((warm["warm"].as_str(), warm["pinned"].as_str()), ("20", "0"), "{warm:?}");
        let (from, there) =
            if to == "green" { (&world.blue, &world.green) } else { (&world.green, &world.blue) };
        assert_eq!(held(there).await, "", "nothing is taken while clients work");
        let repointed = world.switch(to, epoch).await;
        assert_eq!((repointed["moved"].as_str(), repointed["ended"].as_str()), ("20", "0"), "{repointed:?}");
        assert_eq!(held(there).await, before);
        assert_eq!(held(from).await, "", "what was left behind holds nothing");
    }
    for (session, client) in clients.iter().enumerate() {
        for key in 0..KEYS {
            let Some((shared, depth)) = way(session, key) else { continue };
            let unlock = format!("select pg_advisory_unlock{shared}({})", spelled(key));
            for n in 1..=depth {
                assert_eq!(value(client, &unlock).await, "t", "session {session} key {key} {n} of {depth}");
            }
            assert_eq!(value(client, &unlock).await, "f", "session {session} key {key}");
        }
    }
    assert_eq!(held(&world.green).await, "");
}

/// Takes and leaves keys that all want. Who has one counts itself in; another who is in at that time is a mistake.
async fn contend(client: Client, me: u64, inside: Arc<Vec<AtomicI64>>, stop: Arc<AtomicBool>) -> (u64, u64) {
    let (mut turns, mut seed) = (0, me);
    let mut mistakes = 0;
    while !stop.load(SeqCst) {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let state = seed >> 33;
        let key = usize::try_from(state % u64::try_from(KEYS).unwrap()).unwrap();
        let shared = state.is_multiple_of(4);
        let (kind, mine) = if shared { ("_shared", 1) } else { ("", 1000) };
        if value(&client, &format!("select pg_try_advisory_lock{kind}({key})")).await != "t" {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        if state.is_multiple_of(3) {
            client.simple_query(&format!("select pg_advisory_lock{kind}({key})")).await.unwrap();
        }
        let others = inside[key].fetch_add(mine, SeqCst);
        mistakes += u64::from(if shared { others >= 1000 } else { others != 0 });
        tokio::time::sleep(Duration::from_millis(state % 20)).await;
        if state.is_multiple_of(5) {
            client.simple_query("select 1").await.unwrap();
        }
        inside[key].fetch_sub(mine, SeqCst);
        let unlock = format!("select pg_advisory_unlock{kind}({key})");
        for _ in 0..1 + u32::from(state.is_multiple_of(3)) {
            assert_eq!(value(&client, &unlock).await, "t", "session {me} key {key}");
        }
        turns += 1;
    }
    (turns, mistakes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_sessions_hold_one_lock_over_switches_and_holds_that_come_to_nothing() {
    let world = World::new("").await;
    let inside: Arc<Vec<AtomicI64>> = Arc::new((0..KEYS).map(|_| AtomicI64::new(0)).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let mut sessions = Vec::new();
    for me in 0..SESSIONS {
        let client = world.client().await;
        let me = u64::try_from(me).unwrap();
        sessions.push(tokio::spawn(contend(client, me, Arc::clone(&inside), Arc::clone(&stop))));
    }
    let mut side = "blue";
    for epoch in 1..=12 {
        let (to, from) = if side == "blue" { ("green", "blue") } else { ("blue", "green") };
        if epoch % 3 == 0 {
            // Everything is taken, and then nothing comes of it.
            world.command(&format!("WARM {to} EPOCH {epoch}")).await;
            world.command(&format!("HOLD EPOCH {epoch} LIMIT 10000")).await;
            world.command(&format!("DRAIN EPOCH {epoch} BUDGET 5000")).await;
            let settled = world.command(&format!("SETTLE EPOCH {epoch} LIMIT 2000")).await;
            assert_eq!(settled["failed"], "0", "{settled:?}");
            let there = if to == "green" { &world.green } else { &world.blue };
            let here = if from == "green" { &world.green } else { &world.blue };
            assert_eq!(held(there).await, held(here).await);
            world.command(&format!("RELEASE EPOCH {epoch}")).await;
        } else {
            let repointed = world.switch(to, epoch).await;
            assert_eq!(
                (repointed["moved"].as_str(), repointed["ended"].as_str()),
                ("20", "0"),
                "{epoch}: {repointed:?} {:?}",
                world
                    .rows("SHOW SESSIONS")
                    .await
                    .iter()
                    .filter(|row| !row["reason"].is_empty())
                    .collect::<Vec<_>>()
            );
            side = to;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, SeqCst);
    let mut all = BTreeMap::new();
    for (me, session) in sessions.into_iter().enumerate() {
        all.insert(me, session.await.unwrap());
    }
    assert!(all.values().all(|(turns, _)| *turns > 0), "{all:?}");
    assert_eq!(all.values().map(|(_, mistakes)| mistakes).sum::<u64>(), 0, "{all:?}");
    println!("{} turns", all.values().map(|(turns, _)| turns).sum::<u64>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_have_its_lock_over_there_is_named_and_ended() {
    let world = World::new("").await;
    let (client, other) = (world.client().await, world.client().await);
    // A statement timeout of the client's own is not in the way of its locks.
    client.batch_execute("select pg_advisory_lock(42); set statement_timeout = '1s'").await.unwrap();
    let (stranger, connection) = {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(world.green.port()).user("postgres").dbname("postgres");
        config.connect(tokio_postgres::NoTls).await.unwrap()
    };
    tokio::spawn(connection);
    stranger.batch_execute("select pg_advisory_lock(42)").await.unwrap();
    assert_eq!(world.command("WARM green EPOCH 1").await["warm"], "2");
    world.command("HOLD EPOCH 1 LIMIT 10000").await;
    assert_eq!(world.command("DRAIN EPOCH 1 BUDGET 1000").await["busy"], "0");
    let settled = world.command("SETTLE EPOCH 1 LIMIT 3000").await;
    assert_eq!((settled["stale"].as_str(), settled["warm"].as_str()), ("0", "1"), "{settled:?}");
    let sessions = world.rows("SHOW SESSIONS").await;
    let reasons: Vec<_> =
        sessions.iter().map(|row| (row["class"].as_str(), row["reason"].as_str())).collect();
    assert_eq!(
        reasons,
        [
            ("pinned", "a session advisory lock that somebody else holds on the other side (0:42)"),
            ("movable", "")
        ]
    );
    let repointed = world.command("REPOINT green EPOCH 1").await;
    assert_eq!((repointed["moved"].as_str(), repointed["ended"].as_str()), ("1", "1"), "{repointed:?}");
    world.command("RELEASE EPOCH 1").await;
    assert_eq!(value(&other, "select who()").await, "green");
    assert!(client.simple_query("select 1").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn locks_of_a_hold_that_came_to_nothing_are_given_back_by_who_says_nothing() {
    let world = World::new("").await;
    let client = world.client().await;
    client.batch_execute("select pg_advisory_lock(42)").await.unwrap();
    world.command("WARM green EPOCH 1").await;
    world.command("HOLD EPOCH 1 LIMIT 10000").await;
    world.command("DRAIN EPOCH 1 BUDGET 1000").await;
    world.command("SETTLE EPOCH 1 LIMIT 3000").await;
    assert_eq!(held(&world.green).await, held(&world.blue).await);
    world.command("RELEASE EPOCH 1").await;
    pgteal_testkit::wait_until("no lock on the other side", Duration::from_secs(5), async || {
        let held = held(&world.green).await;
        if held.is_empty() { Ok(()) } else { Err(held) }
    })
    .await
    .unwrap();
    assert_ne!(held(&world.blue).await, "", "the session's own stays");
    let repointed = world.switch("green", 2).await;
    assert_eq!(repointed["moved"], "1", "{repointed:?}");
}
