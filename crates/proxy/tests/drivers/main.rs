//! A cutover under each driver: sessions in every state an application leaves them in, moved while they are in it.
//!
//! A driver's play opens one session for each case, called as the case (`application_name`), and steps on by lines of its
//! standard input and output. It says `ready` when each session is in its state, begins the next statement of those at rest
//! when it hears `held`, ends the open transactions when it hears `finish`, says `finished`, and then, after `released` at the
//! latest, for each case that it is `ok` or why it is not, and `done`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, dead_code)]

mod arena;
mod play;
#[path = "../auth/servers.rs"]
mod servers;
mod with_psql;
mod with_tokio_postgres;
#[path = "../world/mod.rs"]
mod world;

use std::collections::BTreeMap;

use arena::Arena;
use play::Play;

/// Where a session is when clients are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Rest,
    /// In a transaction, which has to be waited for.
    Inside,
    /// It cannot be moved; it is named and ended.
    Pinned,
}

const CASES: [(&str, At); 13] = [
    ("idle", At::Rest),
    ("in_transaction", At::Inside),
    ("in_pipeline", At::Inside),
    ("in_open_pipeline", At::Inside),
    ("in_copy_in", At::Inside),
    ("in_copy_out", At::Inside),
    ("with_cursor", At::Inside),
    ("with_held_cursor", At::Pinned),
    ("with_prepared_statements", At::Rest),
    ("with_listen", At::Rest),
    ("with_advisory_locks", At::Rest),
    ("with_settings", At::Rest),
    ("tls_and_channel_binding", At::Rest),
];

/// Plays all cases but those that the driver has no words for.
async fn cutover(arena: &Arena, mut play: Play, without: &[&str]) {
    let cases: BTreeMap<&str, At> = CASES.into_iter().filter(|(name, _)| !without.contains(name)).collect();
    let count = |at| cases.values().filter(|is| **is == at).count();
    let (inside, pinned) = (count(At::Inside), count(At::Pinned));
    let lock = arena.blue.connect("postgres").await.unwrap();
    lock.batch_execute("select pg_advisory_lock(4711)").await.unwrap();
    play.expect("ready").await;
    arena.until("busy", inside).await;
    arena.blue.sql("notify news, 'from blue'").await.unwrap();

    arena.command("LOOK LIMIT 5000").await;
    let sessions = arena.rows("SHOW SESSIONS").await;
    assert_eq!(sessions.len(), cases.len(), "{sessions:#?}");
    for session in &sessions {
        let at = cases[session["application_name"].as_str()];
        let class = match at {
            At::Rest => "movable",
            At::Inside => "draining",
            At::Pinned => "pinned",
        };
        assert_eq!(session["class"], class, "{session:?}");
        assert!(at != At::Pinned || session["reason"].contains("kept"), "{session:?}");
    }
    let warm = arena.command("WARM green EPOCH 1 LIMIT 20000").await;
    assert_eq!(warm["failed"], "0", "{warm:?} {:#?}", arena.rows("SHOW SESSIONS").await);
    arena.command("HOLD EPOCH 1 LIMIT 60000 RUN 'drivers'").await;
    assert_eq!(arena.command("DRAIN EPOCH 1 BUDGET 1").await["busy"], inside.to_string());
    play.say("held").await;
    // Who listens waits for news and says nothing.
    arena.until("held", cases.len() - inside - 1).await;
    play.say("finish").await;
    lock.batch_execute("select pg_advisory_unlock(4711)").await.unwrap();
    play.expect("finished").await;
    let drained = arena.command("DRAIN EPOCH 1 BUDGET 20000").await;
    assert_eq!(drained["busy"], "0", "{drained:?}");
    arena.in_step().await;
    let settled = arena.command("SETTLE EPOCH 1 LIMIT 20000").await;
    assert_eq!((settled["stale"].as_str(), settled["failed"].as_str()), ("0", "0"), "{settled:?}");
    let repointed = arena.command("REPOINT green EPOCH 1").await;
    assert_eq!(repointed["ended"], pinned.to_string(), "{repointed:?}");
    arena.command("RELEASE EPOCH 1").await;
    let news = arena.green.connect("postgres").await.unwrap();
    news.batch_execute("notify news, 'from green'").await.unwrap();

    play.say("released").await;
    let verdicts = play.verdicts().await;
    let names: Vec<&str> = verdicts.keys().map(String::as_str).collect();
    assert_eq!(names, cases.keys().copied().collect::<Vec<_>>());
    let failed: Vec<_> = verdicts.iter().filter(|(_, verdict)| *verdict != "ok").collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg() {
    let arena = Arena::new().await;
    let play = Play::python("with_psycopg.py", &arena);
    cutover(&arena, play, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asyncpg() {
    let arena = Arena::new().await;
    let play = Play::python("with_asyncpg.py", &arena);
    cutover(&arena, play, &["in_open_pipeline"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_postgres() {
    let arena = Arena::new().await;
    let play = Play::node("with_node_postgres.js", &arena);
    cutover(&arena, play, &["in_open_pipeline"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jdbc() {
    let arena = Arena::new().await;
    let play = Play::java("WithJdbc.java", &arena);
    cutover(&arena, play, &["in_open_pipeline"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libpq() {
    let arena = Arena::new().await;
    cutover(&arena, with_psql::play(&arena), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokio_postgres() {
    let arena = Arena::new().await;
    cutover(&arena, with_tokio_postgres::play(&arena), &with_tokio_postgres::WITHOUT).await;
}
