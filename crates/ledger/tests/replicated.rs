//! The shop can be replicated whole, and the oracle reads the copy as it reads the original: sound when all arrived,
//! broken when the last of it did not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod setup;

use std::time::Duration;

use anyhow::Result;
use pgteal_ledger::{Oracle, Workload};
use pgteal_testkit::{Cluster, Program, wait_until};

const BOUND: Duration = Duration::from_secs(30);

/// An empty copy of both databases that follows them.
async fn follower(blue: &Cluster, major: u16) -> Result<Cluster> {
    let identities =
        "ALTER TABLE shop.notes REPLICA IDENTITY FULL; ALTER TABLE shop.journal REPLICA IDENTITY FULL;
                      ALTER TABLE shop.coupons REPLICA IDENTITY USING INDEX coupons_code";
    blue.sql_in("shop", identities).await?;
    blue.sql_in("billing", "ALTER TABLE billing.journal REPLICA IDENTITY FULL").await?;
    let green = Cluster::start_new(major).await?;
    let tools = green.distribution();
    for db in ["shop", "billing"] {
        green.sql(&format!("CREATE DATABASE {db}")).await?;
        let mut dump = Program::file(tools.bin().join("pg_dump")).args(["-s", "-d", &blue.conninfo(db)]);
        if let Some(lib) = tools.lib() {
            dump = dump.env("LD_LIBRARY_PATH", lib);
        }
        let schema = dump.run(BOUND).await?;
        assert!(schema.status.success(), "{}", schema.stderr);
        // psql's own commands, which newer minor versions of pg_dump write, are no SQL.
        let schema: Vec<&str> = schema.stdout.lines().filter(|line| !line.starts_with('\\')).collect();
        green.sql_in(db, &schema.join("\n")).await?;
        blue.sql_in(db, &format!("CREATE PUBLICATION {db} FOR ALL TABLES")).await?;
        let conninfo = blue.conninfo(db);
        green
            .sql_in(db, &format!("CREATE SUBSCRIPTION {db} CONNECTION '{conninfo}' PUBLICATION {db}"))
            .await?;
        let unready = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'";
        wait_until("all tables are copied", BOUND, async || {
            let left = green.sql_in(db, unready).await.unwrap();
            if left.trim() == "0" { Ok(()) } else { Err(format!("{left} left")) }
        })
        .await?;
    }
    Ok(green)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replicated_copy_is_sound_once_all_has_arrived_and_not_before() -> Result<()> {
    let blue = setup::cluster(15, &[]).await?;
    let green = follower(&blue, 18).await?;
    let mut config = setup::config(&blue)?;
    config.rate = Some(600.0);
    let workload = Workload::start(config).await?;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    // From here on green misses what blue acknowledges.
    green.sql_in("shop", "ALTER SUBSCRIPTION shop DISABLE").await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let record = workload.stop().await;

    let oracle = Oracle::new(&record);
    let (shop, billing) = (green.connect("shop").await?, green.connect("billing").await?);
    let early = oracle.check(&shop, Some(&billing)).await?;
    assert!(early.lost > 0 && early.duplicated == 0 && early.ghost == 0, "{early:#?}");

    green.sql_in("shop", "ALTER SUBSCRIPTION shop ENABLE").await?;
    for db in ["shop", "billing"] {
        let target = blue.sql_in(db, "SELECT pg_current_wal_insert_lsn()").await?;
        let slot = format!(
            "SELECT confirmed_flush_lsn >= '{}' FROM pg_replication_slots WHERE slot_name = '{db}'",
            target.trim()
        );
        wait_until("green has all of blue", BOUND, async || {
            let there = blue.sql_in(db, &slot).await.unwrap();
            if there.trim() == "t" { Ok(()) } else { Err(there) }
        })
        .await?;
    }
    let late = oracle.check(&shop, Some(&billing)).await?;
    assert!(late.is_flawless(), "{late:#?}");

    // Whoever writes to green without the sequences meets numbers that were given already.
    let again = "INSERT INTO shop.ledger (session, seq, op, amount) VALUES (0, 9999999, 'create', 0) RETURNING entry_no";
    let entry_no: i64 = green.sql_in("shop", again).await?.trim().parse()?;
    let reused = oracle.check(&shop, Some(&billing)).await?;
    assert!(entry_no < 100 && reused.reordered == 1 && reused.ghost == 1, "{entry_no} {reused:#?}");
    Ok(())
}
