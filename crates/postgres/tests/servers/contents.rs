//! Catalogue, identities, fingerprints and digests: equal for equal contents on every release.

use std::collections::BTreeSet;

use pgteal_postgres::catalog::{self, TableName};
use pgteal_postgres::digest::{self, RowKey};
use pgteal_postgres::identity::{self, ReplicaIdentity};
use pgteal_postgres::{Session, activity, extension, fingerprint};

use crate::cluster::{ROLE, cluster, majors};

/// Every kind of column whose text form could depend on version or settings, and every kind of table.
const CONTENTS: &str = r#"
    CREATE SCHEMA shop; CREATE TYPE shop.mood AS ENUM ('sad', 'ok'); CREATE DOMAIN shop.positive AS int CHECK (VALUE > 0);
    CREATE TYPE shop.pair AS (a int, b text);
    CREATE TABLE shop.kinds (id bigint PRIMARY KEY, i smallint, n numeric(20, 5), r real, d double precision, m money,
        t text, c char(5), y bytea, ts timestamp, tz timestamptz, da date, ti time, iv interval, b bool, u uuid,
        ip inet, j json, jb jsonb, x xml, ar int[], ra int4range, mr int4multirange, e shop.mood, dom shop.positive,
        co shop.pair, bi bit varying, tv tsvector, po point, g int GENERATED ALWAYS AS (i * 2) STORED, gone int);
    INSERT INTO shop.kinds (id, i, n, r, d, m, t, c, y, ts, tz, da, ti, iv, b, u, ip, j, jb, x, ar, ra, mr, e, dom, co, bi, tv, po)
    SELECT k, k % 100, k / 7.0, k / 3.0, k / 3.0::float8, k, 'text ' || k || E' \\ " '' é', 'c' || k % 10, decode(md5(k::text), 'hex'),
        timestamp '2020-01-01' + k * interval '1 hour', timestamptz '2020-01-01 UTC' + k * interval '1 minute',
        date '2020-01-01' + k, time '12:00', k * interval '1 day 2 hours', k % 2 = 0, md5(k::text)::uuid,
        '10.0.0.1', '{"a": 1}', jsonb_build_object('k', k), '<a/>', ARRAY[k, NULL], int4range(k, k + 5),
        int4multirange(int4range(k, k + 5)), 'ok', k, ROW(k, 'x')::shop.pair, B'101', to_tsvector('simple', 'a b'), point(k, 1)
    FROM generate_series(1, 500) k;
    INSERT INTO shop.kinds (id, d, r, ts) VALUES (1000, 'NaN', 'infinity', 'infinity');
    ALTER TABLE shop.kinds DROP COLUMN gone;
    CREATE TABLE shop."Or""der" ("a""b" int NOT NULL, k text NOT NULL, v text, UNIQUE (k, "a""b"));
    INSERT INTO shop."Or""der" SELECT i, 'k' || i, 'v' FROM generate_series(1, 50) i;
    CREATE TABLE shop.heap (v text, j json); INSERT INTO shop.heap SELECT 'same', '{}' FROM generate_series(1, 3);
    CREATE TABLE shop.deferred (id int PRIMARY KEY DEFERRABLE);
    CREATE TABLE shop.partial (id int NOT NULL, x int); CREATE UNIQUE INDEX ON shop.partial (id) WHERE x > 0;
    CREATE UNIQUE INDEX ON shop.partial (x);
    CREATE TABLE shop.nothing (id int PRIMARY KEY); ALTER TABLE shop.nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE shop.part (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE shop.part_1 PARTITION OF shop.part FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
    CREATE TABLE shop.part_2 PARTITION OF shop.part DEFAULT;
    CREATE UNLOGGED TABLE shop.unlogged (id int PRIMARY KEY); CREATE MATERIALIZED VIEW shop.mat AS SELECT 1 AS x;
    CREATE VIEW shop.view AS SELECT id, t FROM shop.kinds WHERE id > 3 ORDER BY id;
    CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER touch BEFORE UPDATE ON shop.kinds FOR EACH ROW EXECUTE FUNCTION shop.touch();
    CREATE TRIGGER always BEFORE UPDATE ON shop.heap FOR EACH ROW EXECUTE FUNCTION shop.touch();
    ALTER TABLE shop.heap ENABLE ALWAYS TRIGGER always;
    CREATE INDEX ON shop.kinds (lower(t)) WHERE b; ALTER TABLE shop.heap ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON shop.heap USING (v = 'same'); CREATE SEQUENCE shop.q AS int INCREMENT 5;
    CREATE RULE r AS ON DELETE TO shop.heap DO INSTEAD NOTHING;
    ANALYZE shop.kinds;"#;

async fn prepared(major: u32, db: &str) -> Session {
    let (_, s) = cluster(major).database(db).await;
    s.batch("setup", CONTENTS).await.unwrap();
    s
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_contents_have_equal_digests_and_fingerprints_on_every_release() {
    let mut seen = Vec::new();
    for major in majors() {
        let s = prepared(major, "contents_equal").await;
        let mut digests = Vec::new();
        for table in catalog::tables(&s).await.unwrap() {
            digests.push((table.name.to_string(), digest::table(&s, &table.name).await.unwrap()));
        }
        assert_eq!(digests.iter().map(|(_, d)| d.rows).sum::<i64>(), 501 + 50 + 3, "{major}");
        let lines = fingerprint::read(&s).await.unwrap();
        assert!(lines.lines.len() > 60, "{}", lines.lines.len());
        seen.push((major, digests, lines));
    }
    for other in &seen[1..] {
        assert_eq!(seen[0].1, other.1, "{} and {}", seen[0].0, other.0);
        let difference = seen[0].2.difference(&other.2);
        assert!(difference.is_empty(), "{} and {}: {difference:#?}", seen[0].0, other.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_difference_of_schema_or_rows_is_found_and_narrowed() {
    let s = prepared(*majors().last().unwrap(), "contents_differ").await;
    let before = fingerprint::read(&s).await.unwrap();
    let changes = [
        "ALTER TABLE shop.heap ADD COLUMN w int",
        "ALTER TYPE shop.mood ADD VALUE 'happy'",
        "CREATE INDEX ON shop.heap (v)",
        "ALTER TABLE shop.heap ADD CHECK (v <> '')",
        "CREATE OR REPLACE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "ALTER TABLE shop.kinds DISABLE TRIGGER touch",
        "ALTER TABLE shop.kinds ALTER COLUMN i SET DEFAULT 5",
        "ALTER TABLE shop.kinds ALTER COLUMN i SET NOT NULL",
        "ALTER SEQUENCE shop.q INCREMENT 6",
        "ALTER TABLE shop.heap FORCE ROW LEVEL SECURITY",
    ];
    let mut last = before;
    s.batch("making room", "DELETE FROM shop.kinds WHERE i IS NULL").await.unwrap();
    for sql in changes {
        s.batch("changing", sql).await.unwrap();
        let now = fingerprint::read(&s).await.unwrap();
        assert!(!last.difference(&now).is_empty(), "not seen: {sql}");
        last = now;
    }

    let table = TableName::new("shop", "Or\"der");
    let key = RowKey { columns: vec!["k".to_owned(), "a\"b".to_owned()] };
    let whole = digest::table(&s, &table).await.unwrap();
    let buckets = digest::buckets(&s, &table, &key, 16).await.unwrap();
    assert_eq!(buckets.values().map(|d| d.rows).sum::<i64>(), 50);
    s.batch("changing a row", "UPDATE shop.\"Or\"\"der\" SET v = 'other' WHERE k = 'k7'").await.unwrap();
    assert_ne!(digest::table(&s, &table).await.unwrap(), whole);
    let now = digest::buckets(&s, &table, &key, 16).await.unwrap();
    let differing: Vec<i64> =
        now.iter().filter(|(b, d)| buckets.get(b) != Some(d)).map(|(b, _)| *b).collect();
    assert_eq!(differing.len(), 1, "one row, one bucket");
    let rows = digest::rows_of_buckets(&s, &table, &key, 16, &differing, 1000).await.unwrap();
    let found = rows.iter().find(|(k, _)| k[0].as_deref() == Some("k7")).unwrap();
    assert_eq!(i64::try_from(rows.len()).unwrap(), now[&differing[0]].rows);
    let absent = vec![Some("k7".to_owned()), Some("8".to_owned())];
    let by_key = digest::rows_by_key(&s, &table, &key, &[found.0.clone(), absent.clone()]).await.unwrap();
    assert_eq!(by_key.get(&found.0), Some(&found.1));
    assert!(!by_key.contains_key(&absent));
    s.batch("changing it back", "UPDATE shop.\"Or\"\"der\" SET v = 'v' WHERE k = 'k7'").await.unwrap();
    assert_eq!(digest::table(&s, &table).await.unwrap(), whole, "order does not matter");
    let heap = TableName::new("shop", "heap");
    let three = digest::table(&s, &heap).await.unwrap();
    s.batch("one less", "ALTER TABLE shop.heap DISABLE RULE r; DELETE FROM shop.heap WHERE ctid = '(0,1)'")
        .await
        .unwrap();
    assert_ne!(digest::table(&s, &heap).await.unwrap(), three, "duplicates count");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identities_are_what_the_server_will_use() {
    for major in majors() {
        let s = prepared(major, "contents_identity").await;
        let all = identity::list(&s).await.unwrap();
        let seen: Vec<_> = all
            .iter()
            .map(|t| (t.table.name.as_str(), t.usable, t.key_columns.join(","), t.candidate_index.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                ("Or\"der", false, String::new(), Some("Or\"der_k_a\"b_key")),
                ("deferred", false, String::new(), None),
                ("heap", false, String::new(), None),
                ("kinds", true, "id".to_owned(), None),
                ("nothing", false, String::new(), None),
                ("part", true, "id,at".to_owned(), None),
                ("part_1", true, "id,at".to_owned(), None),
                ("part_2", true, "id,at".to_owned(), None),
                ("partial", false, String::new(), None),
            ],
            "{major}"
        );
        let heap = all.iter().find(|t| t.table.name == "heap").unwrap();
        assert_eq!(heap.no_equality, ["j"]);
        let order = TableName::new("shop", "Or\"der");
        identity::set(&s, &order, &ReplicaIdentity::Index("Or\"der_k_a\"b_key".to_owned())).await.unwrap();
        identity::set(&s, &heap.table, &ReplicaIdentity::Full).await.unwrap();
        let all = identity::list(&s).await.unwrap();
        let order = all.iter().find(|t| t.table == order).unwrap();
        assert!(order.usable && order.key_columns == ["k", "a\"b"], "{order:?}");
        let heap = all.iter().find(|t| t.table.name == "heap").unwrap();
        assert!(heap.usable && heap.key_columns.is_empty() && heap.declared == ReplicaIdentity::Full);
        // The server agrees: a publication of all tables refuses exactly those that are not usable.
        s.batch("publishing", "CREATE PUBLICATION everything FOR ALL TABLES").await.unwrap();
        for t in all.iter().filter(|t| !t.partitioned) {
            let refused = s.batch("deleting", &format!("DELETE FROM {}", t.table.quoted())).await.is_err();
            let by_rule = t.table.name == "heap";
            assert_eq!(refused, !t.usable && !by_rule, "{major}: {}", t.table);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_replication_leaves_behind_is_listed() {
    for major in majors() {
        let (_, empty) = cluster(major).database("contents_empty").await;
        assert!(catalog::is_empty(&empty).await.unwrap(), "{major}");
        let s = prepared(major, "contents_listed").await;
        assert!(!catalog::is_empty(&s).await.unwrap());
        let all = catalog::relations(&s).await.unwrap();
        let special: BTreeSet<_> = all
            .iter()
            .filter(|t| t.unlogged || t.kind != catalog::RelationKind::Table)
            .map(|t| t.name.name.as_str())
            .collect();
        assert_eq!(special, BTreeSet::from(["mat", "part", "unlogged"]), "{major}");
        assert_eq!(all.iter().find(|t| t.name.name == "kinds").unwrap().estimated_rows, 501);
        assert_eq!(catalog::large_objects(&s).await.unwrap(), 0);
        s.batch("making one", "SELECT lo_create(0)").await.unwrap();
        assert_eq!(catalog::large_objects(&s).await.unwrap(), 1);
        let always = catalog::replica_triggers(&s).await.unwrap();
        assert_eq!((always.len(), always[0].name.as_str(), always[0].enabled.as_str()), (1, "always", "A"));
        assert_eq!(extension::installed(&s).await.unwrap()[0].name, "plpgsql");
        assert!(extension::available(&s).await.unwrap().iter().any(|e| e.name == "plpgsql"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_others_are_seen_and_ended_and_ours_are_not() {
    let running = cluster(*majors().last().unwrap());
    let db = "contents_activity";
    let (server, s) = running.database(db).await;
    let ours = server.connect(db, pgteal_postgres::Purpose::control("keep")).await.unwrap();
    let (idle, open) = (running.client(db).await, running.client(db).await);
    open.batch_execute("BEGIN; CREATE TEMP TABLE t (id int)").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    let here = |a: &activity::Activity| a.database.as_deref() == Some(db);
    let clients = activity::clients(&s, ROLE).await.unwrap();
    assert_eq!(clients.iter().filter(|a| here(a)).count(), 2);
    let old = activity::long_transactions(&s, ROLE, std::time::Duration::from_millis(20)).await.unwrap();
    assert_eq!(old.iter().filter(|a| here(a) && a.has_xid && a.application == "app").count(), 1);
    open.batch_execute("COMMIT; BEGIN; PREPARE TRANSACTION 'gid1'").await.unwrap();
    let prepared = activity::prepared_transactions(&s).await.unwrap();
    assert!(prepared.iter().any(|p| p.gid == "gid1" && p.database == db));
    open.batch_execute("ROLLBACK PREPARED 'gid1'").await.unwrap();
    let ended = activity::terminate_others(&s, ROLE, activity::Whose::Database(db)).await.unwrap();
    assert_eq!(ended.len(), 2);
    activity::wait_gone(&s, &ended, std::time::Duration::from_secs(5)).await.unwrap();
    assert!(idle.batch_execute("SELECT 1").await.is_err());
    ours.batch("still here", "SELECT 1").await.unwrap();
}
