//! What the workload measures while it runs: stalls, pauses, refusals, its own limits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod setup;

use std::time::Duration;

use anyhow::Result;
use pgteal_ledger::{Dialect, Oracle, Workload, WorkloadConfig, WorkloadError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_is_seen_live_in_its_window_and_in_the_record() -> Result<()> {
    let cluster = setup::cluster(17, &[]).await?;
    let mut config = setup::config(&cluster)?;
    config.rate = Some(200.0);
    let workload = Workload::start(config).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let calm = workload.counters();
    assert!((20..=140).contains(&calm.acked), "200 a second for half a second: {calm:?}");
    assert!(
        calm.connected == 9 && calm.window.p50_us > 0 && calm.window.p99_us >= calm.window.p50_us,
        "{calm:?}"
    );

    let began = workload.mark();
    let mut locker = cluster.connect("shop").await?;
    let lock = locker.transaction().await?;
    lock.batch_execute("LOCK TABLE shop.ledger IN ACCESS EXCLUSIVE MODE").await?;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let held = workload.counters();
    assert!(held.window.longest_stall_us >= 500_000, "transactions under way count: {held:?}");
    lock.rollback().await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let after = workload.mark();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let released = workload.counters();
    assert!(released.window.longest_stall_us < 400_000, "{released:?}");

    let record = workload.stop().await;
    let (stalled, calm) = (record.window(began, after), record.window(after + 50_000, u64::MAX));
    assert!(stalled.longest_stall_us >= 590_000 && stalled.longest_latency_us >= 500_000, "{stalled:?}");
    assert!(calm.longest_stall_us < 400_000 && calm.failed == 0, "{calm:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_workload_is_at_rest_and_goes_on_with_the_same_connections() -> Result<()> {
    let cluster = setup::cluster(16, &[]).await?;
    let mut config = setup::config(&cluster)?;
    config.rate = None;
    let workload = Workload::start(config).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    workload.pause(Duration::from_secs(5)).await?;
    let busy =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^ledger/' AND state <> 'idle'";
    assert_eq!(cluster.sql(busy).await?.trim(), "0");
    let before = workload.counters();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(workload.counters().acked, before.acked);

    workload.set_rate(Some(100.0));
    workload.resume();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let record = workload.stop().await;
    assert!((10..=80).contains(&(record.acknowledged() - before.acked)), "100 a second for half a second");
    assert_eq!(record.connections_dropped(), 0);

    let (shop, billing) = (cluster.connect("shop").await?, cluster.connect("billing").await?);
    let verdict = Oracle::new(&record).check(&shop, Some(&billing)).await?;
    assert!(verdict.is_flawless(), "{verdict:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_counted_by_sqlstate_in_every_dialect_and_leave_nothing() -> Result<()> {
    let cluster = setup::cluster(14, &[]).await?;
    for (number, dialect) in Dialect::ALL.into_iter().enumerate() {
        let mut config = setup::config(&cluster)?;
        config.first_session = 100 * number as u32;
        config.dialects = vec![dialect];
        config.rate = Some(400.0);
        let workload = Workload::start(config).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        // Refuses the statement behind COMMIT's back: pipelined sessions have sent COMMIT already.
        let refuse = "CREATE OR REPLACE FUNCTION shop.refuse() RETURNS trigger LANGUAGE plpgsql AS
                         $$BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '25006'; END$$;
                      CREATE TRIGGER refuse BEFORE INSERT ON shop.journal EXECUTE FUNCTION shop.refuse()";
        cluster.sql_in("shop", refuse).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.sql_in("shop", "DROP TRIGGER refuse ON shop.journal").await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let record = workload.stop().await;
        assert!(
            record.errors().keys().eq(["25006"]),
            "{dialect}: {:?} {:?}",
            record.errors(),
            record.error_examples(3)
        );
        assert!(record.failed() > 0 && record.unknown() == 0, "{dialect}");

        let (shop, billing) = (cluster.connect("shop").await?, cluster.connect("billing").await?);
        let verdict = Oracle::new(&record).check(&shop, Some(&billing)).await?;
        assert!(verdict.is_sound() && verdict.connections_dropped == 0, "{dialect}: {verdict:#?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_record_stops_the_sessions_and_says_so() -> Result<()> {
    let cluster = setup::cluster(18, &[]).await?;
    let mut config = setup::config(&cluster)?;
    config.rate = None;
    config.max_transactions = 90;
    let workload = Workload::start(config).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(workload.counters().sessions, 0);
    let record = workload.stop().await;
    assert_eq!(record.acknowledged(), 90);
    let (shop, billing) = (cluster.connect("shop").await?, cluster.connect("billing").await?);
    let verdict = Oracle::new(&record).check(&shop, Some(&billing)).await?;
    assert!(verdict.truncated && verdict.is_sound(), "{verdict:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_begin_says_why() -> Result<()> {
    let cluster = setup::cluster(18, &[]).await?;
    let nowhere = WorkloadConfig::new("host=127.0.0.1 port=1 user=postgres")?;
    assert!(matches!(Workload::start(nowhere).await, Err(WorkloadError::Connect { .. })));

    let no_tables = WorkloadConfig::new(&cluster.socket_conninfo("postgres"))?;
    assert!(matches!(Workload::start(no_tables).await, Err(WorkloadError::Open { .. })));

    let first = Workload::start(setup::config(&cluster)?).await?;
    let same_numbers = Workload::start(setup::config(&cluster)?).await;
    assert!(matches!(same_numbers, Err(WorkloadError::Open { first: 0, .. })), "{same_numbers:?}");
    first.stop().await;

    let mut no_rate = setup::config(&cluster)?;
    no_rate.rate = Some(0.0);
    assert!(matches!(Workload::start(no_rate).await, Err(WorkloadError::Config(_))));
    assert!(
        WorkloadConfig::new("password=secret host").is_err_and(|error| !error.to_string().contains("secret"))
    );
    Ok(())
}
