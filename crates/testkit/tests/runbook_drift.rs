//! What nobody replicates, changed after `up`: a switchover refuses and names it, whenever it was changed, and goes on once
//! it is taken back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod rig;

use std::sync::{Arc, Mutex};

use pgteal_core::deployment::{Direction, Side};
use pgteal_core::switchover;
use pgteal_saga::driver::Outcome;
use pgteal_saga::state::Cause;
use pgteal_saga::{CrashPoint, Failure};
use pgteal_testkit::Cluster;
use rig::moments::fact;
use rig::{Moments, Rig};

const SWITCH: Direction = Direction::SWITCH;

/// There before `up`: a trigger that must not fire on replicated rows, a view that was filled once, what is to be changed.
const BEFORE: &str = "CREATE TABLE seen (id int PRIMARY KEY, n int);
    CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.n := NEW.n + 1; RETURN NEW; END';
    CREATE TRIGGER always BEFORE INSERT ON seen FOR EACH ROW EXECUTE FUNCTION count_up();
    ALTER TABLE seen ENABLE ALWAYS TRIGGER always;
    CREATE TRIGGER plain BEFORE UPDATE ON seen FOR EACH ROW EXECUTE FUNCTION count_up();
    CREATE VIEW v AS SELECT id FROM seen; CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM seen;
    CREATE FUNCTION f(i int) RETURNS int LANGUAGE sql AS 'SELECT i'; CREATE RULE r AS ON DELETE TO v DO INSTEAD NOTHING;
    CREATE ROLE reader; CREATE INDEX seen_n ON seen (n)";

/// What is changed on blue in database shop, how it is taken back, the code, and what must be told.
const CHANGES: &[(&str, &str, &str, &str)] = &[
    ("CREATE TABLE late (a int)", "DROP TABLE late", "schema-drift", "public.late"),
    ("CREATE INDEX late_n ON seen (n)", "DROP INDEX late_n", "schema-drift", "CREATE INDEX late_n"),
    ("ALTER TABLE seen ADD COLUMN c int", "ALTER TABLE seen DROP COLUMN c", "schema-drift", "public.seen.c"),
    (
        "ALTER TABLE seen DISABLE TRIGGER plain",
        "ALTER TABLE seen ENABLE TRIGGER plain",
        "schema-drift",
        "public.seen.plain enabled D",
    ),
    (
        "ALTER TABLE seen ENABLE TRIGGER always",
        "ALTER TABLE seen ENABLE ALWAYS TRIGGER always",
        "schema-drift",
        "public.seen.always enabled O",
    ),
    (
        "GRANT SELECT ON seen TO reader",
        "REVOKE SELECT ON seen FROM reader",
        "schema-drift",
        "on blue, since `up`, in database shop: privileges of public.seen: changed",
    ),
    (
        "GRANT SELECT (n) ON seen TO reader",
        "REVOKE SELECT (n) ON seen FROM reader",
        "schema-drift",
        "privileges of column public.seen.n: new",
    ),
    (
        "REVOKE EXECUTE ON FUNCTION f FROM PUBLIC",
        "GRANT EXECUTE ON FUNCTION f TO PUBLIC",
        "schema-drift",
        "privileges of function public.f(i integer)",
    ),
    (
        "GRANT USAGE ON SCHEMA shop TO reader",
        "REVOKE USAGE ON SCHEMA shop FROM reader",
        "schema-drift",
        "privileges of schema shop",
    ),
    (
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader",
        "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM reader",
        "schema-drift",
        "default privileges of postgres in schema any for r: new",
    ),
    (
        "CREATE OR REPLACE VIEW v AS SELECT id FROM seen WHERE n > 0",
        "CREATE OR REPLACE VIEW v AS SELECT id FROM seen",
        "schema-drift",
        "definition of view public.v: changed",
    ),
    (
        "CREATE OR REPLACE RULE r AS ON DELETE TO v DO INSTEAD SELECT 1",
        "CREATE OR REPLACE RULE r AS ON DELETE TO v DO INSTEAD NOTHING",
        "schema-drift",
        "definition of rule public.v.r: changed",
    ),
    (
        "ALTER FUNCTION f COST 7",
        "ALTER FUNCTION f COST 100",
        "schema-drift",
        "definition of function public.f(i integer): changed",
    ),
    (
        "ALTER TABLE seen SET (fillfactor = 70)",
        "ALTER TABLE seen RESET (fillfactor)",
        "schema-drift",
        "options of public.seen: new",
    ),
    (
        "CREATE EXTENSION hstore VERSION '1.4'",
        "DROP EXTENSION hstore",
        "schema-drift",
        "version of extension hstore: new",
    ),
    ("CREATE DATABASE late", "DROP DATABASE late", "schema-drift", "database late was made on blue"),
    ("CREATE ROLE late", "DROP ROLE late", "guardrail", "role late is missing"),
    (
        "ALTER ROLE reader PASSWORD 'new'",
        "ALTER ROLE reader PASSWORD NULL",
        "guardrail",
        "role reader differs",
    ),
    (
        "ALTER ROLE reader SET work_mem = '5MB'",
        "ALTER ROLE reader RESET work_mem",
        "guardrail",
        "settings of role reader differ",
    ),
    ("GRANT reader TO app", "REVOKE reader FROM app", "guardrail", "role app is not a member of reader"),
    (
        "ALTER DATABASE shop SET work_mem = '5MB'",
        "ALTER DATABASE shop RESET work_mem",
        "guardrail",
        "settings of database shop differ",
    ),
    (
        "REVOKE CONNECT ON DATABASE shop FROM PUBLIC",
        "GRANT CONNECT ON DATABASE shop TO PUBLIC",
        "guardrail",
        "privileges, limit or comment of database shop",
    ),
    (
        "SELECT lo_create(4711)",
        "SELECT lo_unlink(4711)",
        "guardrail",
        "database shop on blue holds large objects",
    ),
];

/// Why a run unwound: the step that refused and what it said.
fn refusal(outcome: &Outcome) -> (&str, &Failure) {
    match outcome {
        Outcome::Unwound { cause: Cause::Refused { step, failure } } => (step, failure),
        other => panic!("it was not refused: {other:?}"),
    }
}

async fn upgraded(from: u16) -> Rig {
    let rig = Rig::new(from, 18, 200).await;
    rig.blue.sql_in("shop", BEFORE).await.unwrap();
    assert_eq!(rig.up().await, Outcome::Done);
    rig
}

/// What blue answers to a stranger.
async fn said(cluster: &Cluster, sql: &str) -> String {
    cluster.sql_in("shop", sql).await.map_or_else(|e| e.to_string(), |_| "done".to_owned())
}

async fn must_refuse(rig: &Rig, direction: Direction, code: &str, told: &[&str]) {
    let (outcome, _) = rig.switchover(direction).await;
    let (step, failure) = refusal(&outcome);
    assert_eq!((step, failure.code.as_deref()), ("guardrails", Some(code)), "{told:?}: {failure}");
    for told in told {
        assert!(failure.to_string().contains(told), "{told}: {failure}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_after_up_is_named_and_may_be_taken_back() {
    let rig = upgraded(15).await;
    // A few at a time: of more than ten obstacles only the first are told.
    for some in CHANGES.chunks(3) {
        for (change, ..) in some {
            rig.blue.sql_in("shop", change).await.unwrap_or_else(|e| panic!("{change}: {e}"));
        }
        let drifts = some.iter().any(|(.., code, _)| *code == "schema-drift");
        let told: Vec<&str> = some.iter().map(|(.., told)| *told).collect();
        must_refuse(&rig, SWITCH, if drifts { "schema-drift" } else { "guardrail" }, &told).await;
        for (_, back, ..) in some {
            rig.blue.sql_in("shop", back).await.unwrap_or_else(|e| panic!("{back}: {e}"));
        }
    }
    rig.blue.sql_in("shop", "INSERT INTO seen VALUES (1, 1); TRUNCATE shop.order_audit").await.unwrap();
    let (outcome, events) = rig.switchover(SWITCH).await;
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(fact(&events, "freshen", "views").unwrap(), 1);
    let seen = "SELECT n, (SELECT n FROM m) FROM seen";
    assert_eq!(
        rig.green.sql_in("shop", seen).await.unwrap(),
        "2|1",
        "fired once, and the view was filled again"
    );
    let never = "SELECT count(*) FROM pg_class WHERE relname = 'order_audit' AND reltuples < 0";
    assert_eq!(rig.green.sql_in("shop", never).await.unwrap(), "0", "green has no statistics of a table");

    // The other way it is green that counts; roles that were there before us do not.
    for (change, back, code, told) in [
        (
            "GRANT SELECT ON seen TO reader",
            "REVOKE SELECT ON seen FROM reader",
            "schema-drift",
            "on green, since `up`",
        ),
        (
            "CREATE TABLE late (a int)",
            "DROP TABLE late",
            "schema-drift",
            "only green has in database shop: relation public.late",
        ),
        ("CREATE ROLE late", "DROP ROLE late", "guardrail", "on blue, unlike on green: role late is missing"),
    ] {
        rig.green.sql_in("shop", change).await.unwrap();
        must_refuse(&rig, Direction::BACK, code, &[told]).await;
        rig.green.sql_in("shop", back).await.unwrap();
    }
    // What is missing there may also be made there, although it is fenced.
    rig.green.sql("CREATE ROLE late").await.unwrap();
    rig.blue.sql("BEGIN READ WRITE; CREATE ROLE late; COMMIT").await.unwrap();
    assert_eq!(rig.switchover(Direction::BACK).await.0, Outcome::Done);
}

/// Between the guardrails and the fence.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_unseen_while_a_switchover_waits_for_its_moment() {
    let rig = upgraded(14).await;
    let load = rig.workload(100.0).await;
    let asks = |sqls: &'static [&'static str]| {
        let (blue, answers) = (rig.blue.clone(), Arc::new(Mutex::new(Vec::new())));
        let told = answers.clone();
        let act = async move {
            for sql in sqls {
                let answer = said(&blue, sql).await;
                told.lock().unwrap().push(answer);
            }
        };
        (act, answers)
    };
    // What is not DDL of one database is not refused, but seen, before anybody is held or before the point of no return.
    for (step, refuses, sqls, back, told) in [
        (
            "await-calm",
            "hold-clients",
            &["CREATE ROLE late"],
            "DROP ROLE late",
            "there were changes of roles",
        ),
        (
            "await-calm",
            "hold-clients",
            &["CREATE DATABASE late"],
            "DROP DATABASE late",
            "there were changes of databases",
        ),
        (
            "stage-fence",
            "hold-clients",
            &["GRANT reader TO app"],
            "REVOKE reader FROM app",
            "there were changes of memberships of roles",
        ),
        (
            "drain",
            "repoint",
            &["ALTER ROLE reader SET work_mem = '6MB'"],
            "ALTER ROLE reader RESET ALL",
            "there were changes of settings",
        ),
        (
            "drain",
            "repoint",
            &["SELECT lo_create(4711)"],
            "SELECT lo_unlink(4711)",
            "there were changes of large objects",
        ),
        (
            "stage-fence",
            "hold-clients",
            &[
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgteal/seal'",
            ],
            "SELECT 1",
            "was lost",
        ),
    ] {
        let (act, answers) = asks(sqls);
        let (outcome, _) =
            rig.switch_through(SWITCH, Moments::new().at(step, CrashPoint::Succeeded, act)).await;
        assert_eq!(*answers.lock().unwrap(), ["done"], "{sqls:?}");
        let (step, failure) = refusal(&outcome);
        assert_eq!((step, failure.code.as_deref()), (refuses, Some("guardrail")), "{failure}");
        assert!(failure.to_string().contains(told), "{failure}");
        rig.blue.sql_in("shop", back).await.unwrap();
    }

    // DDL is refused, and what is a session's own affair is not.
    let (act, answers) = asks(&[
        "CREATE TABLE late (a int)",
        "GRANT SELECT ON seen TO reader",
        "CREATE INDEX CONCURRENTLY late ON seen (n)",
        "CREATE TEMP TABLE own (a serial PRIMARY KEY, b text DEFAULT 'x'); CREATE INDEX ON own (b); INSERT INTO own VALUES (1); DROP TABLE own",
        "REFRESH MATERIALIZED VIEW m",
        "INSERT INTO seen VALUES (1, 1)",
    ]);
    let (outcome, _) =
        rig.switch_through(SWITCH, Moments::new().at("await-calm", CrashPoint::Succeeded, act)).await;
    assert_eq!(outcome, Outcome::Done);
    let answers = answers.lock().unwrap().clone();
    for refused in &answers[..3] {
        assert!(refused.contains("pgteal: a switchover is under way"), "{answers:#?}");
    }
    assert_eq!(answers[3..], ["done", "done", "done"], "{answers:#?}");
    let verdict = rig.judge(&load.stop().await, Side::Green).await;
    assert!(verdict.is_flawless() && verdict.acknowledged > 50, "{verdict:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_taken_up_again_behind_the_guardrails_looks_again() {
    let rig = upgraded(17).await;
    let dies = || Moments::new().die_at("await-calm", CrashPoint::Succeeded);
    let runbook = || switchover::runbook(SWITCH).unwrap();
    let (run, ended) = rig.begin_switch(SWITCH, Vec::new(), dies()).await;
    assert!(ended.is_err(), "{ended:?}");
    // Nobody is there to refuse it.
    rig.blue.sql_in("shop", "CREATE INDEX late ON seen (n)").await.unwrap();
    let outcome = rig.resume(runbook(), &run).await;
    let (step, failure) = refusal(&outcome);
    assert_eq!((step, failure.code.as_deref()), ("hold-clients", Some("schema-drift")), "{failure}");
    rig.blue.sql_in("shop", "DROP INDEX late").await.unwrap();

    let (run, ended) = rig.begin_switch(SWITCH, Vec::new(), dies()).await;
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(rig.resume(runbook(), &run).await, Outcome::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_above_the_bound_is_a_guardrail() {
    let mut rig = upgraded(16).await;
    rig.settings.max_lag_bytes = 0;
    let load = rig.workload(200.0).await;
    must_refuse(&rig, SWITCH, "guardrail", &["lag_bytes"]).await;
    drop(load.stop().await);
}
