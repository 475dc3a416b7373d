//! Sequences, exactly and quickly.

use std::time::{Duration, Instant};

use pgteal_postgres::sequence::{self, Ahead, SequenceName, SequenceReader, SequenceValue, Watch, ahead_of};

use crate::cluster::{cluster, majors};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_read_and_set_exactly() {
    for major in majors() {
        let (_, s) = cluster(major).database("seq_exact").await;
        let sql = "CREATE SCHEMA app; CREATE SEQUENCE app.fresh; CREATE SEQUENCE app.restarted; CREATE SEQUENCE app.\"O\"\"dd\";
            CREATE SEQUENCE app.down INCREMENT -3 MINVALUE -1000 MAXVALUE -1; CREATE SEQUENCE app.small AS smallint CYCLE;
            CREATE SEQUENCE app.cached CACHE 50; CREATE TABLE app.t (id int GENERATED ALWAYS AS IDENTITY);
            CREATE TEMP SEQUENCE gone; SELECT nextval('app.restarted'), nextval('app.down'), nextval('app.cached');
            ALTER SEQUENCE app.restarted RESTART 500; SELECT setval('app.\"O\"\"dd\"', 777, false);
            INSERT INTO app.t DEFAULT VALUES";
        s.batch("setup", sql).await.unwrap();
        let all = sequence::list(&s).await.unwrap();
        let seen: Vec<_> = all
            .iter()
            .map(|q| (q.name.name.as_str(), q.last_value, q.is_called, q.data_type.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("O\"dd", 777, false, "bigint"),
                ("cached", 50, true, "bigint"),
                ("down", -1, true, "bigint"),
                ("fresh", 1, false, "bigint"),
                ("restarted", 500, false, "bigint"),
                ("small", 1, false, "smallint"),
                ("t_id_seq", 1, true, "integer"),
            ],
            "{major}"
        );
        assert_eq!(ahead_of(&all[5], 10), Ahead::Exact, "it cycles");

        let to = |name: &str, last_value, is_called| {
            (SequenceName::new("app", name), SequenceValue { last_value, is_called })
        };
        sequence::set(&s, &[to("O\"dd", 9, true), to("fresh", 70, false), to("down", -400, true)])
            .await
            .unwrap();
        let next = "SELECT nextval('app.\"O\"\"dd\"'), nextval('app.fresh'), nextval('app.down')";
        assert_eq!(
            s.text_rows("next", next).await.unwrap()[0],
            ["10", "70", "-403"].map(|v| Some(v.to_owned()))
        );
        let error = sequence::set(&s, &[to("fresh", 99, true), to("missing", 1, true)]).await.unwrap_err();
        assert_eq!(error.sqlstate().unwrap().code(), "42P01");
        assert_eq!(
            s.text_rows("next", "SELECT nextval('app.fresh')").await.unwrap()[0][0].as_deref(),
            Some("71")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_that_passed_their_bound_are_named() {
    for major in majors() {
        let (_, s) = cluster(major).database("seq_moved").await;
        let sql = "CREATE SEQUENCE public.up; CREATE SEQUENCE public.down INCREMENT -1; CREATE SEQUENCE public.still;
            SELECT setval('public.up', 100), setval('public.down', -100)";
        s.batch("setup", sql).await.unwrap();
        let all = sequence::list(&s).await.unwrap();
        let oid = |name: &str| all.iter().find(|q| q.name.name == name).unwrap().oid;
        let watch = |name: &str, limit, ascending| Watch { oid: oid(name), limit, ascending };
        for (up, down, expected) in [
            (100, -100, vec![]),
            (99, -100, vec![oid("up")]),
            (100, -99, vec![oid("down")]),
            (0, 0, vec![oid("up"), oid("down")]),
        ] {
            let watches = [watch("up", up, true), watch("down", down, false), watch("still", 0, true)];
            assert_eq!(sequence::moved_past(&s, &watches).await.unwrap(), expected, "{major}: {up} {down}");
        }
    }
}

/// What the pause pays for two thousand sequences; printed, and bounded loosely because machines differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checking_two_thousand_sequences_is_a_matter_of_milliseconds() {
    for major in [*majors().first().unwrap(), *majors().last().unwrap()] {
        let (_, s) = cluster(major).database("seq_many").await;
        let sql = "DO $$ BEGIN FOR i IN 1..2000 LOOP EXECUTE format('CREATE SEQUENCE public.q%s', i); END LOOP; END $$;
            SELECT count(nextval(oid::regclass)) FROM pg_class WHERE relkind = 'S'";
        s.batch("setup", sql).await.unwrap();
        let all = sequence::list(&s).await.unwrap();
        let watches: Vec<Watch> =
            all.iter().map(|q| Watch { oid: q.oid, limit: 1000, ascending: true }).collect();
        let names: Vec<SequenceName> = all.iter().map(|q| q.name.clone()).collect();
        let reader = SequenceReader::new(&names);
        reader.warm(&s).await.unwrap();
        let mut best = [Duration::MAX; 2];
        for _ in 0..5 {
            let start = Instant::now();
            assert!(sequence::moved_past(&s, &watches).await.unwrap().is_empty());
            best[0] = best[0].min(start.elapsed());
            let start = Instant::now();
            assert_eq!(reader.read(&s).await.unwrap().len(), 2000);
            best[1] = best[1].min(start.elapsed());
        }
        println!("{major}: 2000 sequences: moved_past {:?}, exact read {:?}", best[0], best[1]);
        assert!(best[0] < Duration::from_millis(200), "{major}: {best:?}");
    }
}
