//! The fence's layers, one by one, against everybody who could write.

use std::time::Duration;

use pgteal_postgres::fence::{self, Fence, FenceState};
use pgteal_postgres::{Purpose, Session, marker, schema, slot, state as remembered, wal};

use crate::cluster::{ROLE, cluster, majors, state};

const ID: &str = "fence234";
const BOUND: Duration = Duration::from_secs(10);

pub(crate) async fn install(fence: &Fence, s: &mut Session) {
    fence.install(s, BOUND, &mut |_| {}).await.unwrap();
    assert_eq!(fence::unarmed(s).await.unwrap(), []);
}

const SCHEMA: &str = "CREATE SCHEMA app; CREATE TABLE app.t (id int PRIMARY KEY, v text);
    CREATE TABLE app.part (id int) PARTITION BY LIST (id); CREATE TABLE app.leaf PARTITION OF app.part FOR VALUES IN (1);
    CREATE UNLOGGED TABLE app.unlogged (id int); CREATE TABLE app.\"Od\"\"d\" (id int);
    CREATE VIEW app.v AS SELECT * FROM app.t; CREATE MATERIALIZED VIEW app.m AS SELECT 1 AS x;
    INSERT INTO app.t VALUES (1, 'a')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raised_fence_refuses_everybody_but_us_and_a_lowered_one_nobody() {
    for major in majors() {
        let db = "fence_layers";
        let (server, mut s) = cluster(major).database(db).await;
        s.batch("setup", SCHEMA).await.unwrap();
        let fence = Fence::new(ID, ROLE);
        install(&fence, &mut s).await;
        let old = cluster(major).client(db).await;
        let open = cluster(major).client(db).await;
        open.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM app.part").await.unwrap();
        assert!(!fence.probe(&s).await.unwrap(), "{major}: an open fence lets the probe through");
        old.batch_execute("INSERT INTO app.t VALUES (2, 'b'); CREATE TABLE app.made (id int)").await.unwrap();
        assert_eq!(fence::unarmed(&s).await.unwrap().len(), 1, "{major}: a new table has no trigger yet");
        install(&fence, &mut s).await;

        fence.raise(&s, 5).await.unwrap();
        let lockers = fence::lockers(&s).await.unwrap();
        fence::wait_lockers(&s, &lockers, BOUND).await.unwrap();
        let seen = fence.state(&s).await.unwrap();
        assert!(seen.is_raised() && !seen.is_lowered() && seen.epoch == Some(5), "{major}: {seen:?}");
        assert!(fence.probe(&s).await.unwrap(), "{major}");
        for sql in [
            "INSERT INTO app.t VALUES (3, 'c')",
            "UPDATE app.t SET v = 'x'",
            "UPDATE app.t SET v = 'x' WHERE false",
            "DELETE FROM app.t",
            "TRUNCATE app.t",
            "INSERT INTO app.v VALUES (3, 'c')",
            "INSERT INTO app.part VALUES (1)",
            "INSERT INTO app.leaf VALUES (1)",
            "INSERT INTO app.unlogged VALUES (1)",
            "INSERT INTO app.\"Od\"\"d\" VALUES (1)",
            "WITH w AS (DELETE FROM app.t RETURNING *) SELECT * FROM w",
            "SET transaction_read_only = off; INSERT INTO app.t VALUES (3, 'c')",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; INSERT INTO app.t VALUES (3, 'c')",
            "SET search_path = app, pg_catalog; INSERT INTO t VALUES (3, 'c')",
            "SET application_name = 'pgteal/fake'; INSERT INTO app.t VALUES (3, 'c')",
            "SET session_replication_role = replica; INSERT INTO app.t VALUES (3, 'c')",
            "SET session_replication_role = replica; TRUNCATE app.t",
            "SET session_replication_role = replica; CREATE TABLE app.another (id int)",
            "COPY app.t FROM PROGRAM 'echo 9'",
            "CREATE TABLE app.another (id int)",
            "ALTER TABLE app.t ADD COLUMN w int",
            "DROP TABLE app.t",
            "REFRESH MATERIALIZED VIEW app.m",
            "GRANT SELECT ON app.t TO PUBLIC",
            "CREATE TABLE app.as_select AS SELECT 1 AS x",
            "DO $$ BEGIN INSERT INTO app.t VALUES (3, 'c'); END $$",
        ] {
            assert_eq!(state(old.batch_execute(sql).await), "25006", "{major}: {sql}");
            let _ = old.batch_execute("ROLLBACK").await;
        }
        assert_eq!(
            state(open.batch_execute("INSERT INTO app.t VALUES (4, 'd')").await),
            "25006",
            "{major}: open"
        );
        let fresh = cluster(major).client(db).await;
        assert_eq!(
            state(fresh.batch_execute("CREATE TEMP TABLE x (id int)").await),
            "25006",
            "{major}: new session"
        );
        assert_eq!(state(fresh.batch_execute("SELECT nextval('app.q')").await), "42P01");
        let read: i64 = fresh.query_one("SELECT count(*) FROM app.t", &[]).await.unwrap().get(0);
        assert_eq!(read, 2, "{major}: reads go on");

        // Ours pass, also on a new connection.
        s.batch("ours", "INSERT INTO app.t VALUES (10, 'ours'); CREATE TABLE app.ours (id int)")
            .await
            .unwrap();
        let again = server.connect(db, Purpose::control("again")).await.unwrap();
        again.batch("ours", "DROP TABLE app.ours; DELETE FROM app.t WHERE id = 10").await.unwrap();

        fence.raise(&s, 6).await.unwrap();
        fence.lower(&s, 7).await.unwrap();
        let seen = fence.state(&s).await.unwrap();
        assert!(seen.is_lowered() && !seen.is_raised() && seen.epoch == Some(7), "{major}: {seen:?}");
        let _ = old.batch_execute("ROLLBACK").await;
        old.batch_execute("RESET ALL; INSERT INTO app.t VALUES (3, 'c'); DROP TABLE app.made").await.unwrap();
        cluster(major).client(db).await.batch_execute("INSERT INTO app.t VALUES (5, 'e')").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fence_is_gone_without_a_trace() {
    for major in majors() {
        let db = "fence_gone";
        let (_, mut s) = cluster(major).database(db).await;
        s.batch("setup", SCHEMA).await.unwrap();
        let before = trace(&s).await;
        let fence = Fence::new(ID, ROLE);
        assert_eq!(
            fence.state(&s).await.unwrap(),
            FenceState {
                installed: false,
                writes_refused: false,
                ddl_refused: false,
                read_only_default: false,
                epoch: None
            }
        );
        for _ in 0..2 {
            install(&fence, &mut s).await;
            fence.raise(&s, 1).await.unwrap();
            let refused = fence.remove(&mut s, BOUND, &mut |_| {}).await;
            assert!(refused.unwrap_err().to_string().ends_with("it is raised"), "{major}");
            fence.lower(&s, 1).await.unwrap();
            let mut last = None;
            fence.remove(&mut s, BOUND, &mut |p| last = Some(p)).await.unwrap();
            assert!(last.is_some_and(|p| p.done == p.total && p.total == 5), "{major}: {last:?}");
            schema::remove(&s, ID).await.unwrap();
            fence.remove(&mut s, BOUND, &mut |_| {}).await.unwrap();
            assert_eq!(trace(&s).await, before, "{major}");
        }
    }
}

/// Everything of ours would show in here.
async fn trace(s: &Session) -> Vec<Vec<Option<String>>> {
    let sql = "SELECT relname FROM pg_class UNION ALL SELECT proname FROM pg_proc UNION ALL SELECT tgname FROM pg_trigger
        UNION ALL SELECT evtname FROM pg_event_trigger UNION ALL SELECT nspname FROM pg_namespace
        UNION ALL SELECT setconfig::text FROM pg_db_role_setting x JOIN pg_database d ON d.oid = x.setdatabase
        WHERE d.datname = current_database() ORDER BY 1";
    s.text_rows("looking", sql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_read_only_default_of_before_comes_back() {
    let major = *majors().last().unwrap();
    let db = "fence_default";
    let (_, mut s) = cluster(major).database(db).await;
    s.batch("setup", &format!("ALTER DATABASE {db} SET default_transaction_read_only = off")).await.unwrap();
    let before = trace(&s).await;
    let fence = Fence::new(ID, ROLE);
    install(&fence, &mut s).await;
    fence.raise(&s, 1).await.unwrap();
    fence.raise(&s, 1).await.unwrap();
    fence.lower(&s, 1).await.unwrap();
    fence.lower(&s, 1).await.unwrap();
    let stored = s.text_rows("looking", "SELECT setconfig FROM pg_db_role_setting").await.unwrap();
    assert!(format!("{stored:?}").contains("default_transaction_read_only=off"), "{stored:?}");
    fence.remove(&mut s, BOUND, &mut |_| {}).await.unwrap();
    schema::remove(&s, ID).await.unwrap();
    // Lowering twice forgets what was before only after it was put back.
    assert!(trace(&s).await.len() <= before.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_epoch_and_a_foreign_schema_change_nothing() {
    let major = *majors().first().unwrap();
    let (_, mut s) = cluster(major).database("fence_epoch").await;
    let fence = Fence::new(ID, ROLE);
    install(&fence, &mut s).await;
    fence.raise(&s, 8).await.unwrap();
    let before = (trace(&s).await, remembered::list(&s).await.unwrap());
    let error = fence.lower(&s, 7).await.unwrap_err();
    assert!(remembered::is_stale(&error), "{error}");
    let error = fence.raise(&s, 7).await.unwrap_err();
    assert!(remembered::is_stale(&error), "{error}");
    let error = remembered::put(&s, "x", &serde_json::json!(1), 7, ID).await.unwrap_err();
    assert!(remembered::is_stale(&error), "{error}");
    assert_eq!((trace(&s).await, remembered::list(&s).await.unwrap()), before);
    assert!(fence.state(&s).await.unwrap().is_raised());
    assert_eq!(remembered::highest_epoch(&s).await.unwrap(), 8);
    fence.lower(&s, 8).await.unwrap();

    let other = Fence::new("other234", ROLE);
    let error = other.install(&mut s, BOUND, &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("schema pgteal exists and is not ours"), "{error}");
    s.batch("setup", "COMMENT ON SCHEMA pgteal IS 'mine'").await.unwrap();
    let error = fence.install(&mut s, BOUND, &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("it has no comment of ours"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn installing_waits_for_busy_tables_without_blocking_their_writers() {
    let major = *majors().last().unwrap();
    let db = "fence_busy";
    let (_, mut s) = cluster(major).database(db).await;
    s.batch("setup", SCHEMA).await.unwrap();
    let busy = cluster(major).client(db).await;
    busy.batch_execute("BEGIN; UPDATE app.t SET v = 'busy'").await.unwrap();
    let fence = Fence::new(ID, ROLE);
    let error = fence.install(&mut s, Duration::from_millis(300), &mut |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("4 of 5 done; app.t and 0 more are in use"), "{error}");
    let writer = cluster(major).client(db).await;
    let installing = tokio::spawn(async move {
        install(&fence, &mut s).await;
    });
    let mut longest = Duration::ZERO;
    for i in 0..40 {
        let start = std::time::Instant::now();
        writer.execute("INSERT INTO app.t VALUES ($1, 'w')", &[&(100 + i)]).await.unwrap();
        longest = longest.max(start.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    busy.batch_execute("COMMIT").await.unwrap();
    installing.await.unwrap();
    assert!(longest < Duration::from_millis(400), "a writer waited {longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lockers_are_those_of_the_raise_and_can_be_ended() {
    let major = *majors().last().unwrap();
    let db = "fence_lockers";
    let (_, mut s) = cluster(major).database(db).await;
    s.batch("setup", SCHEMA).await.unwrap();
    let fence = Fence::new(ID, ROLE);
    install(&fence, &mut s).await;
    let (writer, reader) = (cluster(major).client(db).await, cluster(major).client(db).await);
    writer.batch_execute("BEGIN; UPDATE app.t SET v = 'late'").await.unwrap();
    reader.batch_execute("BEGIN; SELECT * FROM app.part FOR SHARE").await.unwrap();
    fence.raise(&s, 1).await.unwrap();
    let lockers = fence::lockers(&s).await.unwrap();
    assert_eq!(lockers.len(), 1, "{lockers:?}");
    assert!(!lockers[0].exclusive);
    let error = fence::wait_lockers(&s, &lockers, Duration::from_millis(50)).await.unwrap_err();
    assert!(error.to_string().contains("1 left: process "), "{error}");
    assert_eq!(fence::terminate_lockers(&s, &lockers).await.unwrap(), [lockers[0].pid.unwrap()]);
    fence::wait_lockers(&s, &lockers, BOUND).await.unwrap();
    assert!(state(writer.batch_execute("COMMIT").await) != "no error");
    reader.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_made_across_the_raise_is_noticed() {
    for major in majors() {
        let db = "fence_across";
        let (_, mut s) = cluster(major).database(db).await;
        s.batch("setup", SCHEMA).await.unwrap();
        let fence = Fence::new(ID, ROLE);
        install(&fence, &mut s).await;
        let maker = cluster(major).client(db).await;
        maker.batch_execute("BEGIN; CREATE TABLE app.across (id int)").await.unwrap();
        fence.raise(&s, 1).await.unwrap();
        maker.batch_execute("INSERT INTO app.across VALUES (1)").await.unwrap();
        let lockers = fence::lockers(&s).await.unwrap();
        assert!(lockers.iter().any(|l| l.exclusive), "{major}: {lockers:?}");
        maker.batch_execute("COMMIT").await.unwrap();
        fence::wait_lockers(&s, &lockers, BOUND).await.unwrap();
        assert_eq!(fence::unarmed(&s).await.unwrap().len(), 1, "{major}");
        install(&fence, &mut s).await;
        assert_eq!(state(maker.batch_execute("INSERT INTO app.across VALUES (2)").await), "25006", "{major}");
    }
}

/// What each call costs in a pause with two thousand tables, warm; printed, and bounded loosely because machines differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_calls_of_a_pause_do_not_grow_with_the_number_of_tables() {
    let major = *majors().first().unwrap();
    let (server, setup) = cluster(major).database("fence_many").await;
    let sql = "CREATE SCHEMA app; DO $$ BEGIN FOR i IN 1..2000 LOOP
        EXECUTE format('CREATE TABLE app.t%s (id int PRIMARY KEY)', i); END LOOP; END $$";
    setup.within(Duration::from_secs(60)).batch("setup", sql).await.unwrap();
    let mut s = server.connect("fence_many", Purpose::control("pause")).await.unwrap();
    let fence = Fence::new(ID, ROLE);
    install(&fence, &mut s).await;
    slot::create_logical(&s, "fence_many", "pgoutput").await.unwrap();
    let mut best = [Duration::MAX; 8];
    for epoch in 1..=6 {
        let mut clock = std::time::Instant::now();
        let mut lap = |i: usize| {
            best[i] = best[i].min(clock.elapsed());
            clock = std::time::Instant::now();
        };
        fence.raise(&s, epoch).await.unwrap();
        lap(0);
        let lockers = fence::lockers(&s).await.unwrap();
        fence::wait_lockers(&s, &lockers, BOUND).await.unwrap();
        lap(1);
        assert!(fence.probe(&s).await.unwrap());
        lap(2);
        fence::unarmed(&s).await.unwrap();
        lap(3);
        marker::write(&s).await.unwrap();
        lap(4);
        wal::flush(&s).await.unwrap();
        lap(5);
        slot::advance_to_now(&s, "fence_many").await.unwrap();
        lap(6);
        fence.lower(&s, epoch).await.unwrap();
        lap(7);
    }
    slot::drop(&s, "fence_many", BOUND).await.unwrap();
    let names = ["raise", "lockers", "probe", "unarmed", "marker", "flush", "advance", "lower"];
    println!("{major}, 2000 tables: {:?}", names.iter().zip(best).collect::<Vec<_>>());
    assert!(best.iter().all(|d| *d < Duration::from_millis(100)), "{best:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_staged_change_takes_effect_with_its_commit_and_not_before() {
    for major in majors() {
        let db = "fence_staged";
        let (server, mut s) = cluster(major).database(db).await;
        s.batch("setup", SCHEMA).await.unwrap();
        let fence = Fence::new(ID, ROLE);
        install(&fence, &mut s).await;
        let own = || async { server.connect(db, Purpose::control("fence")).await.unwrap() };
        let client = cluster(major).client(db).await;
        let write =
            || async { client.batch_execute("INSERT INTO app.t SELECT max(id) + 1, 'w' FROM app.t").await };

        // Staged, taken back, or gone with its session: clients write all the time.
        let staged = fence.stage_raise(own().await, 3).await.unwrap();
        assert!(fence.is_lowered(&s).await.unwrap() && staged.is_open(), "{major}");
        write().await.unwrap();
        staged.cancel().await.unwrap();
        drop(fence.stage_raise(own().await, 3).await.unwrap());
        fence.raise(&s, 3).await.unwrap();
        fence.lower(&s, 3).await.unwrap();
        write().await.unwrap();

        let staged = fence.stage_raise(own().await, 4).await.unwrap();
        write().await.unwrap();
        let marker = marker::write(&s).await.unwrap();
        staged.commit().await.unwrap();
        assert!(!staged.is_open() && fence.is_raised(&s).await.unwrap(), "{major}");
        assert_eq!(state(write().await), "25006", "{major}");
        assert_eq!(
            marker::written_after_fence(&s).await.unwrap(),
            None,
            "{major}: it came before the commit"
        );
        let after = marker::write(&s).await.unwrap();
        assert!(after > marker);
        assert_eq!(marker::written_after_fence(&s).await.unwrap(), Some(after), "{major}");

        // What a staged raise remembered of before is what a staged lowering puts back.
        let staged = fence.stage_lower(own().await, 5).await.unwrap();
        assert_eq!(state(write().await), "25006", "{major}: only staged");
        staged.commit().await.unwrap();
        let seen = fence.state(&s).await.unwrap();
        assert!(seen.is_lowered() && seen.epoch == Some(5), "{major}: {seen:?}");
        write().await.unwrap();
        cluster(major).client(db).await.batch_execute("INSERT INTO app.t VALUES (90, 'e')").await.unwrap();

        // An old driver can stage nothing, and a frozen one loses what it staged.
        for stale in [fence.stage_raise(own().await, 2).await, fence.stage_lower(own().await, 2).await] {
            assert!(remembered::is_stale(&stale.unwrap_err()), "{major}");
        }
        let brief = Purpose::control("fence").idle_in_transaction(Duration::from_millis(50));
        let staged = fence.stage_raise(server.connect(db, brief).await.unwrap(), 6).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(staged.commit().await.is_err(), "{major}");
        assert!(fence.is_lowered(&s).await.unwrap(), "{major}");
    }
}
