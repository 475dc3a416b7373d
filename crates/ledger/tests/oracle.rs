//! The oracle is only worth what it catches: a sound run is called sound, and each falsified copy of it is not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod setup;

use std::time::Duration;

use anyhow::Result;
use pgteal_ledger::{Oracle, Record, Verdict, Workload};
use pgteal_testkit::{Cluster, required_majors, wait_until};

/// A falsification, and the kind of finding it must lead to.
struct Case {
    name: &'static str,
    sql: &'static str,
    caught: fn(&Verdict) -> bool,
}

/// Each runs in a copy of the shop, past its triggers and foreign keys, as a broken replication would.
const SHOP: &[Case] = &[
    Case {
        name: "an acknowledged ledger entry is deleted",
        sql: "DELETE FROM ledger WHERE (session, seq) IN (SELECT session, seq FROM ledger WHERE op <> 'browse' LIMIT 1)",
        caught: |v| v.lost == 1,
    },
    Case {
        name: "the last transactions of every session are gone from everywhere but the accounts",
        sql: "CREATE TEMP TABLE last AS SELECT session, max(seq) AS seq FROM ledger GROUP BY 1;
              DELETE FROM ledger USING last WHERE last.session = ledger.session AND last.seq = ledger.seq;
              DELETE FROM journal USING last WHERE last.session = journal.session AND last.seq = journal.seq",
        caught: |v| v.lost == 7,
    },
    Case {
        name: "an entry without a key arrives twice",
        sql: "INSERT INTO journal SELECT * FROM journal LIMIT 1",
        caught: |v| v.duplicated == 1,
    },
    Case {
        name: "a note without a key arrives twice",
        sql: "INSERT INTO notes SELECT * FROM notes LIMIT 1",
        caught: |v| v.duplicated == 1,
    },
    Case {
        name: "the audit trigger fires again where a row is applied",
        sql: "INSERT INTO order_audit (session, seq, action) SELECT session, seq, action FROM order_audit LIMIT 1",
        caught: |v| v.duplicated == 1,
    },
    Case {
        name: "an update is reverted",
        sql: "UPDATE orders SET revision = revision - 1, touched = seq, payload = payload || jsonb_build_object('touched', seq)
              WHERE id = (SELECT min(id) FROM orders WHERE revision > 0 AND session IS NOT NULL)",
        caught: |v| v.lost == 1,
    },
    Case {
        name: "an update is applied twice",
        sql: "UPDATE coupons SET revision = revision + 1 WHERE code = (SELECT min(code) FROM coupons WHERE revision > 0)",
        caught: |v| v.duplicated == 1,
    },
    Case {
        name: "a deleted order is back",
        sql: "INSERT INTO orders (customer_id, session, seq, touched, payload)
              SELECT 1, session, seq, seq, jsonb_build_object('touched', seq) FROM order_audit WHERE action = 'DELETE' LIMIT 1",
        caught: |v| v.lost == 1,
    },
    Case {
        name: "a created order is gone",
        sql: "DELETE FROM orders WHERE id = (SELECT min(id) FROM orders WHERE session IS NOT NULL)",
        caught: |v| v.lost == 1 && v.wrong_values == 1, // and its lines point nowhere
    },
    Case {
        name: "one line of an order is gone",
        sql: "DELETE FROM order_items WHERE order_id = (SELECT min(id) FROM orders WHERE session IS NOT NULL) AND line = 1",
        caught: |v| v.lost == 1,
    },
    Case {
        name: "two entries of a session change places",
        sql: "CREATE TEMP TABLE pair AS SELECT session, seq, entry_no, lag(entry_no) OVER w AS earlier, lead(entry_no) OVER w AS later,
                     row_number() OVER w AS n FROM ledger WHERE session = 3 WINDOW w AS (ORDER BY seq);
              UPDATE ledger SET entry_no = CASE pair.n WHEN 1 THEN later ELSE earlier END FROM pair
                  WHERE n <= 2 AND pair.session = ledger.session AND pair.seq = ledger.seq",
        caught: |v| v.reordered == 1 && v.wrong_values == 2,
    },
    Case {
        name: "a sequence gives a number twice",
        sql: "UPDATE ledger SET entry_no = (SELECT max(entry_no) FROM ledger) WHERE (session, seq) IN
                  (SELECT session, max(seq) FROM ledger
                   WHERE session <> (SELECT session FROM ledger ORDER BY entry_no DESC LIMIT 1) GROUP BY 1 LIMIT 1)",
        caught: |v| v.reordered == 1,
    },
    Case {
        name: "the same transactions happened in another order",
        sql: "UPDATE sessions SET chain = (chain + 1) % 2147483647 WHERE session = 2",
        caught: |v| v.reordered == 1,
    },
    Case {
        name: "a transaction nobody sent",
        sql: "INSERT INTO ledger SELECT session, max(seq) + 1000, nextval('entry_number'), 'create', 0 FROM ledger
              WHERE session = 1 GROUP BY 1",
        caught: |v| v.ghost == 1,
    },
    Case {
        name: "a browse that wrote",
        sql: "INSERT INTO ledger SELECT 1, seq, nextval('entry_number'), 'browse', 0 FROM generate_series(1, 100) AS s (seq)
              WHERE NOT EXISTS (SELECT FROM ledger l WHERE l.session = 1 AND l.seq = s.seq) LIMIT 1",
        caught: |v| v.ghost == 1 || v.reordered == 1,
    },
    Case {
        name: "an order nobody created",
        sql: "INSERT INTO orders (customer_id, session, seq, touched, payload) VALUES (1, 0, 99999, 99999, '{\"touched\": 99999}')",
        caught: |v| v.ghost == 1,
    },
    Case {
        name: "a transfer applied twice on one side",
        sql: "UPDATE accounts SET balance = balance + 5, version = version + 1 WHERE id = 9",
        caught: |v| v.wrong_values == 1 && v.balance_difference == 5,
    },
    Case {
        name: "a transfer applied twice on both sides",
        sql: "UPDATE accounts SET balance = balance + CASE id WHEN 9 THEN 5 ELSE -5 END WHERE id IN (9, 10)",
        caught: |v| v.wrong_values == 2 && v.balance_difference == 0,
    },
    Case {
        name: "a row torn between two of its columns",
        sql: "UPDATE orders SET payload = payload || '{\"touched\": 0}' WHERE id = (SELECT min(id) FROM orders WHERE session IS NOT NULL)",
        caught: |v| v.wrong_values == 1,
    },
    Case {
        name: "a session's chain is gone",
        sql: "DELETE FROM sessions WHERE session = 4",
        caught: |v| v.lost == 1,
    },
];

const BILLING: &[Case] = &[
    Case {
        name: "an invoice is gone from the second database",
        sql: "DELETE FROM invoices WHERE id = (SELECT max(id) FROM invoices WHERE session >= 0)",
        caught: |v| v.lost == 1,
    },
    Case {
        name: "an entry of the second database arrives twice",
        sql: "INSERT INTO journal SELECT * FROM journal LIMIT 1",
        caught: |v| v.duplicated == 1,
    },
];

async fn check(cluster: &Cluster, record: &Record, shop: &str, billing: &str) -> Result<Verdict> {
    let (shop, billing) = (cluster.connect(shop).await?, cluster.connect(billing).await?);
    Ok(Oracle::new(record).check(&shop, Some(&billing)).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_run_is_sound_and_every_falsified_copy_is_caught() -> Result<()> {
    let cluster = setup::cluster(18, &[]).await?;
    let mut config = setup::config(&cluster)?;
    config.rate = None;
    let workload = Workload::start(config).await?;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let record = workload.stop().await;

    let verdict = check(&cluster, &record, "shop", "billing").await?;
    assert!(verdict.is_flawless(), "{verdict:#?}");
    assert!(verdict.acknowledged > 500, "{verdict:#?}");

    for (book, cases) in [("shop", SHOP), ("billing", BILLING)] {
        for (number, case) in cases.iter().enumerate() {
            let copy = format!("{book}_{number}");
            cluster.sql(&format!("CREATE DATABASE {copy} TEMPLATE {book} STRATEGY file_copy")).await?;
            let sql =
                format!("SET search_path = {book}; SET session_replication_role = replica; {}", case.sql);
            cluster.sql_in(&copy, &sql).await?;
            let (shop, billing) =
                if book == "shop" { (copy.as_str(), "billing") } else { ("shop", copy.as_str()) };
            let verdict = check(&cluster, &record, shop, billing).await?;
            assert!(!verdict.is_sound() && (case.caught)(&verdict), "{book}, {}: {verdict:#?}", case.name);
            assert!(!verdict.examples.is_empty(), "{}: no example", case.name);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_a_server_really_loses_are_reported_as_lost() -> Result<()> {
    // Asynchronous commits that the WAL writer has not written yet die with the server.
    let settings = [
        ("synchronous_commit", "off"),
        ("wal_writer_delay", "10s"),
        ("wal_buffers", "64MB"),
        ("wal_writer_flush_after", "0"),
    ];
    let cluster = setup::cluster(15, &settings).await?;
    let mut config = setup::config(&cluster)?;
    config.rate = Some(300.0);
    config.reconnect_limit = Duration::from_millis(200);
    let workload = Workload::start(config).await?;
    tokio::time::sleep(Duration::from_millis(800)).await;
    cluster.kill9()?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let record = workload.stop().await;
    cluster.start().await?;

    let verdict = check(&cluster, &record, "shop", "billing").await?;
    assert!(verdict.lost > 0 && !verdict.is_sound(), "{verdict:#?}");
    assert!(verdict.connections_dropped == 9, "{verdict:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_leaves_errors_and_unknown_outcomes_and_still_loses_nothing() -> Result<()> {
    for major in required_majors() {
        let cluster = setup::cluster(major, &[]).await?;
        let mut config = setup::config(&cluster)?;
        config.rate = None;
        let workload = Workload::start(config).await?;
        tokio::time::sleep(Duration::from_millis(250)).await;
        let since = cluster.sql("SELECT clock_timestamp()").await?;
        cluster
            .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^ledger/'")
            .await?;
        let back = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^ledger/' AND query <> ''
               AND backend_start > '{}'",
            since.trim()
        );
        wait_until("all nine sessions to be back", Duration::from_secs(20), async || {
            let there = cluster.sql(&back).await.unwrap();
            if there.trim() == "9" { Ok(()) } else { Err(there) }
        })
        .await?;
        tokio::time::sleep(Duration::from_millis(250)).await;
        cluster.kill9()?;
        cluster.start().await?;
        tokio::time::sleep(Duration::from_millis(250)).await;
        let record = workload.stop().await;

        let verdict = check(&cluster, &record, "shop", "billing").await?;
        assert!(verdict.is_sound() && !verdict.is_flawless(), "{major}: {verdict:#?}");
        assert_eq!(verdict.connections_dropped, 18, "{major}: {verdict:#?}");
        assert!(verdict.errors.contains_key("57P01"), "{major}: {verdict:#?}");
        let unknown = verdict.unknown.present + verdict.unknown.absent;
        assert_eq!(
            record.failed() + unknown,
            record
                .errors()
                .iter()
                .filter(|(code, _)| !code.starts_with("connect"))
                .map(|(_, n)| n)
                .sum::<u64>()
        );
    }
    Ok(())
}
