//! The seal on a schema: whoever changes it is waited for or refused, and what is refused nowhere is seen. And the details
//! of a schema, which are compared with themselves.

use std::time::Duration;

use pgteal_postgres::fence::Fence;
use pgteal_postgres::{Error, Purpose, fingerprint};

use crate::cluster::{ROLE, cluster, majors, state};
use crate::fence::install;

const ID: &str = "seal2345";
const BOUND: Duration = Duration::from_millis(300);
const KEEP: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_seal_no_schema_changes_and_what_else_does_is_seen() {
    for major in majors() {
        let db = "seal";
        let (server, mut s) = cluster(major).database(db).await;
        let fence = Fence::new(ID, ROLE);
        assert!(!fence.is_watched(&s).await.unwrap());
        s.batch("setup", "CREATE TABLE public.t (id int PRIMARY KEY, v int); CREATE MATERIALIZED VIEW public.m AS SELECT 1 AS x")
            .await
            .unwrap();
        install(&fence, &mut s).await;
        assert!(fence.is_watched(&s).await.unwrap(), "{major}");
        let open = async || server.connect(db, Purpose::control("seal")).await.unwrap();

        // DDL that is under way is waited for, and named.
        let (slow, client) = (cluster(major).client(db).await, cluster(major).client(db).await);
        slow.batch_execute("BEGIN; GRANT SELECT ON t TO PUBLIC").await.unwrap();
        client.batch_execute("CREATE TABLE beside (a int)").await.unwrap();
        match fence.seal(open().await, BOUND, KEEP).await {
            Err(Error::NotReached { last, .. }) => {
                assert!(last.contains("of role postgres"), "{major}: {last}")
            }
            other => panic!("{major}: {other:?}"),
        }
        client.batch_execute("DROP TABLE beside").await.unwrap();
        // A statement that has begun before the seal comes to its end after it.
        slow.batch_execute("COMMIT; BEGIN; LOCK t").await.unwrap();
        let waits = tokio::spawn(async move { client.batch_execute("ALTER TABLE t ADD COLUMN w int").await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let seal = fence.seal(open().await, BOUND, KEEP).await.unwrap();
        slow.batch_execute("COMMIT").await.unwrap();
        assert_eq!(state(waits.await.unwrap()), "25006", "{major}");

        let client = cluster(major).client(db).await;
        for sql in [
            "CREATE TABLE late (a int)",
            "CREATE TABLE late AS SELECT 1 AS a",
            "ALTER TABLE t ADD COLUMN w int",
            "DROP TABLE t",
            "ALTER TABLE t DROP COLUMN v",
            "CREATE INDEX ON t (v)",
            "CREATE INDEX CONCURRENTLY late ON t (v)",
            "GRANT INSERT ON t TO PUBLIC",
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DO $$ BEGIN EXECUTE 'CREATE SCHEMA late'; END $$",
            "SET session_replication_role = replica; CREATE TABLE late (a int)",
            "SET application_name = 'pgteal/fake'; CREATE TABLE late (a int)",
            "CREATE TEMP TABLE own (a int); ALTER TABLE t RENAME TO u",
        ] {
            assert_eq!(state(client.batch_execute(sql).await), "25006", "{major}: {sql}");
        }
        for sql in [
            "CREATE TEMP TABLE own (a serial PRIMARY KEY, b text DEFAULT 'x' CHECK (b <> ''), UNIQUE (b))",
            "CREATE INDEX ON own (b); CREATE TRIGGER tr BEFORE UPDATE ON own FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "CREATE TEMP VIEW o AS SELECT * FROM own; ALTER TABLE own ADD COLUMN c int DEFAULT 1; DROP VIEW o",
            "ALTER TABLE own DROP COLUMN c; ALTER TABLE own ALTER b DROP DEFAULT; DROP TABLE own",
            "SELECT 1 AS a INTO TEMP own; DROP TABLE own; CREATE TEMP TABLE gone (a int) ON COMMIT DROP",
            "REFRESH MATERIALIZED VIEW m; TRUNCATE t; INSERT INTO t VALUES (1, 1); ANALYZE t; LOCK t",
        ] {
            client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{major}: {sql}: {e:?}"));
        }
        let valid = client.query_one("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname ~ '^(late|u)'", &[]).await.unwrap();
        assert_eq!(valid.get::<_, i64>(0), 0, "{major}: nothing of it is there");
        s.batch("ours", "CREATE TABLE public.ours (a int); DROP TABLE public.ours").await.unwrap();

        // What the fence itself changes does not count.
        install(&fence, &mut s).await;
        fence.raise(&s, 3).await.unwrap();
        fence.lower(&s, 3).await.unwrap();
        let others = seal.changes().await.unwrap();
        // Tests of other databases make roles and databases at the same time.
        assert!(!others.contains(&"large objects"), "{major}: {others:?}");
        client.batch_execute("SELECT lo_create(0)").await.unwrap();
        assert!(seal.changes().await.unwrap().contains(&"large objects"), "{major}");
        client.batch_execute("ALTER DATABASE seal SET work_mem = '5MB'").await.unwrap();
        assert!(seal.changes().await.unwrap().contains(&"settings"), "{major}");
        let ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name = 'pgteal/seal' AND datname = current_database()";
        client.batch_execute(ends).await.unwrap();
        assert!(seal.changes().await.is_err(), "{major}: it is lost, and says so");

        drop(seal);
        // A controller that stands still keeps nobody from DDL for longer than it said.
        let seal = fence.seal(open().await, BOUND, BOUND).await.unwrap();
        tokio::time::sleep(3 * BOUND).await;
        client.batch_execute("CREATE TABLE late (a int)").await.unwrap();
        assert!(seal.changes().await.is_err(), "{major}: it ended, and says so");
        fence.remove(&mut s, Duration::from_secs(10), &mut |_| {}).await.unwrap();
        let left = client.query_one("SELECT count(*) FROM pg_event_trigger", &[]).await.unwrap();
        assert_eq!(left.get::<_, i64>(0), 0, "{major}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn details_tell_what_was_changed_and_forget_what_was_taken_back() {
    const SETUP: &str = "CREATE SCHEMA app; CREATE TABLE app.t (id int PRIMARY KEY, v int); CREATE VIEW app.v AS SELECT * FROM app.t;
        CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TYPE app.e AS ENUM ('a');
        CREATE AGGREGATE app.g (int) (SFUNC = int4pl, STYPE = int); CREATE STATISTICS app.st ON id, v FROM app.t;
        CREATE OPERATOR app.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);
        CREATE TEXT SEARCH DICTIONARY app.d (TEMPLATE = simple); CREATE SERVER far FOREIGN DATA WRAPPER w;
        CREATE FUNCTION app.et() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'";
    for major in majors() {
        let (_server, s) = cluster(major).database("details").await;
        s.batch("setup", "CREATE FOREIGN DATA WRAPPER w").await.unwrap();
        s.batch("setup", SETUP).await.unwrap();
        let before = fingerprint::details(&s).await.unwrap();
        for (change, back, told) in [
            (
                "GRANT SELECT ON app.t TO PUBLIC",
                "REVOKE SELECT ON app.t FROM PUBLIC",
                "privileges of app.t: changed",
            ),
            (
                "GRANT USAGE ON TYPE app.e TO PUBLIC; REVOKE USAGE ON TYPE app.e FROM PUBLIC",
                "GRANT USAGE ON TYPE app.e TO PUBLIC",
                "privileges of type app.e: changed",
            ),
            (
                "CREATE OR REPLACE VIEW app.v AS SELECT id, v FROM app.t LIMIT 1",
                "CREATE OR REPLACE VIEW app.v AS SELECT  id, v FROM app.t",
                "definition of view app.v: changed",
            ),
            (
                "CREATE OR REPLACE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 2'",
                "CREATE OR REPLACE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
                "definition of function app.f(): changed",
            ),
            (
                "CREATE OR REPLACE AGGREGATE app.g (int) (SFUNC = int4mul, STYPE = int)",
                "CREATE OR REPLACE AGGREGATE app.g (int) (SFUNC = int4pl, STYPE = int)",
                "definition of aggregate app.g(integer): changed",
            ),
            (
                "DROP STATISTICS app.st",
                "CREATE STATISTICS app.st ON id, v FROM app.t",
                "definition of statistics app.st: gone",
            ),
            (
                "ALTER OPERATOR app.=== (int, int) SET (RESTRICT = eqsel)",
                "ALTER OPERATOR app.=== (int, int) SET (RESTRICT = NONE)",
                "definition of operator app.===(integer,integer): changed",
            ),
            (
                "CREATE CAST (app.e AS int) WITH INOUT",
                "DROP CAST (app.e AS int)",
                "definition of cast app.e as integer: new",
            ),
            (
                "ALTER TEXT SEARCH DICTIONARY app.d (STOPWORDS = english)",
                "ALTER TEXT SEARCH DICTIONARY app.d (STOPWORDS)",
                "definition of text search dictionary app.d: changed",
            ),
            (
                "CREATE TEXT SEARCH CONFIGURATION app.c (COPY = simple)",
                "DROP TEXT SEARCH CONFIGURATION app.c",
                "definition of text search configuration app.c: new",
            ),
            (
                "ALTER SERVER far OPTIONS (ADD host 'x')",
                "ALTER SERVER far OPTIONS (DROP host)",
                "definition of foreign server far: changed",
            ),
            (
                "CREATE EVENT TRIGGER et ON ddl_command_end EXECUTE FUNCTION app.et()",
                "DROP EVENT TRIGGER et",
                "definition of event trigger et: new",
            ),
        ] {
            s.batch("change", change).await.unwrap();
            let changes = fingerprint::details(&s).await.unwrap().changes_since(&before);
            assert_eq!(changes, [told], "{major}: {change}");
            s.batch("back", back).await.unwrap();
            let left = fingerprint::details(&s).await.unwrap().changes_since(&before);
            assert!(left.is_empty(), "{major}: {back}: {left:?}");
        }
    }
}
