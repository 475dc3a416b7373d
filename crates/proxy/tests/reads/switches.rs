//! Readers at a switchover.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use pgteal_testkit::wait_until;

use crate::fleet::{Fleet, port_of, ports, said};
use crate::world::value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_go_to_replicas_of_the_new_side_and_see_no_error() {
    let fleet = Fleet::new(2, 2, "").await;
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Vec::new();
    for number in 0..8 {
        let client = fleet.reader().await;
        client.batch_execute(&format!("set work_mem = '{}MB'", 5 + number)).await.unwrap();
        let (stop, reads) = (Arc::clone(&stop), Arc::clone(&reads));
        tasks.push(tokio::spawn(async move {
            let statement = client.prepare("select pg_is_in_recovery(), $1::int").await.unwrap();
            while !stop.load(SeqCst) {
                let row = client.query_one(&statement, &[&number]).await.unwrap();
                assert_eq!((row.get::<_, bool>(0), row.get::<_, i32>(1)), (true, number));
                client.batch_execute("begin; select count(*) from t; commit").await.unwrap();
                reads.fetch_add(1, SeqCst);
            }
            (client, number)
        }));
    }
    let idle = fleet.reader().await;
    idle.batch_execute("select pg_advisory_lock(7)").await.unwrap();
    for (to, epoch) in [("green", 1), ("blue", 2), ("green", 3)] {
        let repointed = fleet.world.switch(to, epoch).await;
        assert_eq!((repointed["moved"].as_str(), repointed["ended"].as_str()), ("9", "0"), "{repointed:?}");
        let replicas = if to == "green" { &fleet.green } else { &fleet.blue };
        assert!(ports(replicas).contains(&port_of(&idle).await), "{to}");
        assert!(ports(replicas).contains(&port_of(&fleet.reader().await).await), "{to}");
        let before = reads.load(SeqCst);
        let more = async || {
            let more = reads.load(SeqCst) - before;
            if more >= 50 { Ok(()) } else { Err(format!("{more} reads")) }
        };
        wait_until("reads on the new side", Duration::from_secs(30), more).await.unwrap();
    }
    let locks = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()";
    assert_eq!(value(&idle, locks).await, "1");
    stop.store(true, SeqCst);
    let mut on = [0; 2];
    for task in tasks {
        let (client, number) = task.await.unwrap();
        assert_eq!(value(&client, "show work_mem").await, format!("{}MB", 5 + number));
        let port = port_of(&client).await;
        on[ports(&fleet.green).iter().position(|replica| *replica == port).unwrap()] += 1;
    }
    // Nine with the idle one.
    assert!(on.iter().all(|count| (3..=5).contains(count)), "{on:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_are_held_and_go_to_the_primary_of_a_side_without_replicas() {
    let fleet = Fleet::new(1, 0, "").await;
    let (reader, writer) = (fleet.reader().await, fleet.world.client().await);
    fleet.world.command("WARM green EPOCH 1 LIMIT 20000").await;
    fleet.world.command("HOLD EPOCH 1 LIMIT 20000 RUN 'test'").await;
    let read = async { port_of(&reader).await };
    tokio::pin!(read);
    let held = async {
        let held = async || {
            let held = fleet.world.command("SHOW STATE").await["held"].clone();
            if held == "1" { Ok(()) } else { Err(format!("{held} held")) }
        };
        wait_until("the reader to be held", Duration::from_secs(30), held).await.unwrap();
        fleet.world.command("REPOINT green EPOCH 1").await;
        fleet.world.command("RELEASE EPOCH 1").await;
    };
    let (port, ()) = tokio::join!(read, held);
    assert_eq!(port, fleet.world.green.port());
    assert_eq!(port_of(&writer).await, fleet.world.green.port());
    assert_eq!(value(&reader, "select who()").await, "green");
    // Back: who was on a primary stays on primaries, and who comes later reads from the replica.
    assert_eq!(fleet.world.switch("blue", 2).await["moved"], "2");
    assert_eq!(port_of(&reader).await, fleet.world.blue.port());
    assert_eq!(port_of(&fleet.reader().await).await, fleet.blue[0].port());
}

/// A replica refuses writes whatever becomes of its primary, so nobody waits for the end of a fence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_refuses_is_refused_at_once_under_a_fence_too() {
    let fleet = Fleet::new(1, 0, "[limits]\nfence_wait_ms = 600000").await;
    // As a controller that is gone leaves it: fenced, and a hold that ended by itself.
    fleet.world.blue.sql("alter database postgres set default_transaction_read_only = on").await.unwrap();
    fleet.world.command("HOLD EPOCH 1 LIMIT 1 RUN 'test'").await;
    let began_fenced = async || {
        let reader = fleet.reader().await;
        let fenced = value(&reader, "show default_transaction_read_only").await;
        if fenced == "on" { Ok(reader) } else { Err(fenced) }
    };
    let bound = Duration::from_secs(30);
    let reader = wait_until("a reader that begins under the fence", bound, began_fenced).await.unwrap();
    let insert = reader.simple_query("insert into t values (1)");
    let error = tokio::time::timeout(bound, insert).await.unwrap().unwrap_err();
    assert_eq!(said(&error).0, "25006");
}
