//! Connections that nobody uses when clients are held and sent to the other side.

use std::time::{Duration, Instant};

use pgteal_testkit::{Cluster, wait_until};

use super::world::value;
use super::{connect, idle, lasting, named, nobody, pid};

async fn sessions(server: &Cluster) -> usize {
    let sql = "select count(*) from pg_stat_activity where backend_type = 'client backend' and application_name = 'app'";
    server.sql(sql).await.unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_leaves_no_old_connection_to_anybody() {
    let world = lasting("").await;
    let stays = named(&world, "app").await;
    let leave = [named(&world, "app").await, named(&world, "app").await];
    drop(leave);
    idle(&world, 2).await;
    world.command("WARM green EPOCH 1 LIMIT 20000").await;
    world.command("HOLD EPOCH 1 LIMIT 20000").await;
    let state = world.command("SHOW STATE").await;
    assert_eq!((state["free_upstreams"].as_str(), state["left_behind"].as_str()), ("0", "2"), "{state:?}");
    assert_eq!(world.command("DRAIN EPOCH 1 BUDGET 5000").await["busy"], "0");
    world.command("SETTLE EPOCH 1 LIMIT 5000").await;
    world.command("REPOINT green EPOCH 1").await;
    world.command("RELEASE EPOCH 1").await;
    let fresh = named(&world, "app").await;
    for client in [&stays, &fresh] {
        assert_eq!(value(client, "select who()").await, "green");
    }
    // What was opened ahead for one session is of use to that one only.
    drop((stays, fresh));
    nobody(&world).await;
    idle(&world, 1).await;
    wait_until("blue to be left", Duration::from_secs(10), async || {
        let count = sessions(&world.blue).await;
        if count == 0 { Ok(()) } else { Err(format!("{count} are there")) }
    })
    .await
    .unwrap();
    world.switch("blue", 2).await;
    assert_eq!(value(&named(&world, "app").await, "select who()").await, "blue");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_opened_before_a_hold_is_not_used_again_after_it() {
    let world = lasting("").await;
    let (stays, leaves) = (named(&world, "app").await, named(&world, "app").await);
    let before = [pid(&stays).await, pid(&leaves).await];
    world.command("HOLD EPOCH 1 LIMIT 20000").await;
    drop(leaves);
    wait_until("it to be closed", Duration::from_secs(5), async || {
        let count = sessions(&world.blue).await;
        if count == 1 { Ok(()) } else { Err(format!("{count} are there")) }
    })
    .await
    .unwrap();
    world.command("RELEASE EPOCH 1").await;
    assert_eq!(pid(&stays).await, before[0]);
    drop(stays);
    nobody(&world).await;
    idle(&world, 0).await;
    assert!(!before.contains(&pid(&named(&world, "app").await).await));
    idle(&world, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_opened_under_the_fence_is_not_used_after_it() {
    let world = lasting("").await;
    world.blue.sql("alter database postgres set default_transaction_read_only = on").await.unwrap();
    assert_eq!(value(&named(&world, "app").await, "show transaction_read_only").await, "on");
    nobody(&world).await;
    idle(&world, 0).await;
    world
        .blue
        .sql("begin read write; alter database postgres set default_transaction_read_only = off; commit")
        .await
        .unwrap();
    assert_eq!(value(&named(&world, "app").await, "show transaction_read_only").await, "off");
    idle(&world, 1).await;
}

/// Who had a setting of its own when its second upstream was opened has it there from the start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_client_set_does_not_come_over_to_another() {
    let world = lasting("").await;
    let client = named(&world, "app").await;
    client.batch_execute("set default_transaction_read_only = on").await.unwrap();
    world.switch("green", 1).await;
    assert_eq!(value(&client, "show transaction_read_only").await, "on");
    client.batch_execute("set default_transaction_read_only = off").await.unwrap();
    drop(client);
    nobody(&world).await;
    idle(&world, 0).await;
    assert_eq!(value(&named(&world, "app").await, "show transaction_read_only").await, "off");
}

/// A login that its server does not answer is given up, and begun anew after the hold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_drain_waits_for_a_login() {
    let world = lasting("").await;
    world.blue.freeze().unwrap();
    let config = world.client_config();
    let coming = tokio::spawn(async move { connect(&config).await });
    wait_until("the login to be under way", Duration::from_secs(5), async || {
        let state = world.command("SHOW STATE").await;
        if state["busy"] == "1" { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await
    .unwrap();
    let began = Instant::now();
    world.command("HOLD EPOCH 1 LIMIT 20000").await;
    let drained = world.command("DRAIN EPOCH 1 BUDGET 8000").await;
    assert_eq!(drained["busy"], "0", "{drained:?}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    world.command("REPOINT green EPOCH 1").await;
    world.command("RELEASE EPOCH 1").await;
    let client = coming.await.unwrap();
    assert_eq!(value(&client, "select who()").await, "green");
    world.blue.thaw();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_drain_waits_for_one_that_is_made_new() {
    let world = lasting("").await;
    let client = named(&world, "app").await;
    let pid: i32 = pid(&client).await.parse().unwrap();
    world.blue.freeze_backend(pid).unwrap();
    drop(client);
    wait_until("it to be made new", Duration::from_secs(5), async || {
        let state = world.command("SHOW STATE").await;
        let seen = [state["clients"].as_str(), state["busy"].as_str()];
        if seen == ["0", "1"] { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await
    .unwrap();
    world.command("HOLD EPOCH 1 LIMIT 20000").await;
    let drained = world.command("DRAIN EPOCH 1 BUDGET 3000").await;
    assert_eq!(drained["busy"], "0", "{drained:?}");
    world.blue.thaw_backend(pid).unwrap();
}
