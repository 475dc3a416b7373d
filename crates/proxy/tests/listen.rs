//! Who listens hears everything once and in order, on whichever side it was notified.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use pgteal_testkit::wait_until;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, NoTls};
use world::{World, value};

const LISTENERS: usize = 20;
const SWITCHES: u64 = 10;

/// A client, and what it is notified of.
async fn listener(world: &World) -> (Client, mpsc::Receiver<(String, String)>) {
    let (client, mut connection) = world.client_config().connect(NoTls).await.unwrap();
    let (heard, hears) = mpsc::channel(100_000);
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(n) = message {
                heard.try_send((n.channel().to_owned(), n.payload().to_owned())).unwrap();
            }
        }
    });
    (client, hears)
}

async fn next(hears: &mut mpsc::Receiver<(String, String)>) -> String {
    let told = tokio::time::timeout(Duration::from_secs(5), hears.recv()).await;
    told.unwrap_or_else(|_| panic!("nothing is heard")).unwrap().1
}

/// Notifies without a pause, one payload longer than any window's rest now and then; answers how many.
async fn notify(client: Client, name: &'static str, stop: Arc<AtomicBool>) -> u64 {
    let mut count = 0;
    while !stop.load(SeqCst) {
        count += 1;
        let filler = "x".repeat(if count % 7 == 0 { 7_000 } else { 0 });
        let notify = format!("select pg_notify('The \"Room\"', '{name} {count} {filler}')");
        let sql = if count % 3 == 0 { format!("begin; {notify}; commit") } else { notify };
        client.simple_query(&sql).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missed_doubled_or_told_out_of_order_over_ten_switches() {
    let world = World::new("").await;
    let mut listeners = Vec::new();
    for n in 0..LISTENERS {
        let (client, hears) = listener(&world).await;
        client.batch_execute("listen \"The \"\"Room\"\"\"; listen other; unlisten other").await.unwrap();
        // Some are at work themselves.
        if n % 4 == 0 {
            client.batch_execute("set work_mem = '7MB'; prepare q as select 1").await.unwrap();
        }
        listeners.push((client, hears));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let notifiers = [("a", world.client().await), ("b", world.client().await)];
    let notifiers =
        notifiers.map(|(name, client)| (name, tokio::spawn(notify(client, name, Arc::clone(&stop)))));
    for epoch in 1..=SWITCHES {
        let to = if epoch % 2 == 1 { "green" } else { "blue" };
        let repointed = world.switch(to, epoch).await;
        assert_eq!((repointed["ended"].as_str(), repointed["cold"].as_str()), ("0", "0"), "{repointed:?}");
        for (client, _) in listeners.iter().step_by(4) {
            assert_eq!(value(client, "execute q").await, "1");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, SeqCst);
    let mut said = BTreeMap::new();
    for (name, notifier) in notifiers {
        said.insert(name.to_owned(), notifier.await.unwrap());
    }
    let all: u64 = said.values().sum();
    assert!(all > 100, "{said:?}");
    println!("{said:?}");
    for (n, (client, hears)) in listeners.iter_mut().enumerate() {
        let mut heard = BTreeMap::new();
        for _ in 0..all {
            let payload = next(hears).await;
            let mut words = payload.split(' ');
            let (name, number) = (words.next().unwrap(), words.next().unwrap().parse::<u64>().unwrap());
            let last = heard.insert(name.to_owned(), number).unwrap_or(0);
            assert_eq!(number, last + 1, "listener {n} of {name}");
        }
        assert_eq!(heard, said, "listener {n}");
        assert_eq!(value(client, "select who()").await, "blue");
        assert!(hears.try_recv().is_err(), "listener {n} hears more than was said");
        let channels = value(client, "select string_agg(c, '|') from pg_listening_channels() c").await;
        assert_eq!(channels, "The \"Room\"");
    }
}

fn signal(pid: &str, signal: &str) {
    assert!(std::process::Command::new("kill").args([signal, pid]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_old_server_has_not_said_yet_is_heard_before_anything_of_the_new_one() {
    let world = World::new("").await;
    let ((client, mut hears), notifier) = (listener(&world).await, world.client().await);
    client.batch_execute("listen room; listen gone").await.unwrap();
    assert_eq!(world.command("WARM green EPOCH 1").await["warm"], "2");
    // What is notified there before clients are there is nobody's.
    world.green.sql("notify room, 'too early'").await.unwrap();
    client.batch_execute("unlisten gone; listen late").await.unwrap();
    let pid = value(&client, "select pg_backend_pid()").await;
    // A server process that has no processor just now.
    signal(&pid, "-STOP");
    notifier.batch_execute("notify late, 'blue 1'; notify gone; notify room, 'blue 2'").await.unwrap();
    world.command("HOLD EPOCH 1 LIMIT 10000").await;
    assert_eq!(world.command("DRAIN EPOCH 1 BUDGET 1000").await["busy"], "0");
    let settle = world.command("SETTLE EPOCH 1 LIMIT 3000");
    let goes_on = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        signal(&pid, "-CONT");
    };
    let (settled, ()) = futures::future::join(settle, goes_on).await;
    assert_eq!((settled["stale"].as_str(), settled["failed"].as_str()), ("0", "0"), "{settled:?}");
    // And one more that was not there when the session was looked at: from past the proxy.
    signal(&pid, "-STOP");
    world.blue.sql("notify room, 'blue 3'").await.unwrap();
    let repoint = world.command("REPOINT green EPOCH 1");
    let goes_on = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        signal(&pid, "-CONT");
    };
    let (repointed, ()) = futures::future::join(repoint, goes_on).await;
    assert_eq!((repointed["moved"].as_str(), repointed["ended"].as_str()), ("2", "0"), "{repointed:?}");
    world.command("RELEASE EPOCH 1").await;
    notifier.batch_execute("notify late, 'green 1'; notify gone; notify room, 'green 2'").await.unwrap();
    for expected in ["blue 1", "blue 2", "blue 3", "green 1", "green 2"] {
        assert_eq!(next(&mut hears).await, expected);
    }
    assert_eq!(value(&client, "select who()").await, "green");
    assert!(hears.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_listens_and_is_not_ready_in_time_is_told_so_and_ended() {
    let world = World::new("").await;
    let (client, _hears) = listener(&world).await;
    let idle = world.client().await;
    client.batch_execute("listen room").await.unwrap();
    // Nobody warmed them.
    world.command("HOLD EPOCH 1 LIMIT 10000").await;
    let repointed = world.command("REPOINT green EPOCH 1").await;
    assert_eq!((repointed["cold"].as_str(), repointed["ended"].as_str()), ("1", "1"), "{repointed:?}");
    world.command("RELEASE EPOCH 1").await;
    assert_eq!(value(&idle, "select who()").await, "green");
    let gone = wait_until("the listener to be ended", Duration::from_secs(5), async || {
        if client.is_closed() { Ok(()) } else { Err("open") }
    });
    gone.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_is_not_ready_in_time_is_told_before_anybody_is_moved() {
    let world = World::new("").await;
    let (client, mut hears) = listener(&world).await;
    client.batch_execute("listen c").await.unwrap();
    let other = world.client().await;
    let warm = world.command("WARM green EPOCH 1 LIMIT 20000").await;
    assert_eq!(warm["warm"], "2", "{warm:?}");
    world.green.freeze().unwrap();
    for client in [&client, &other] {
        client.batch_execute("set work_mem = '9MB'").await.unwrap();
    }
    world.command("HOLD EPOCH 1 LIMIT 20000 RUN 'test'").await;
    world.command("DRAIN EPOCH 1 BUDGET 5000").await;
    let settled = world.command("SETTLE EPOCH 1 LIMIT 300").await;
    assert_eq!(settled["unready"], "1", "the other one would only be opened late: {settled:?}");
    world.green.thaw();
    let settled = world.command("SETTLE EPOCH 1 LIMIT 5000").await;
    assert_eq!((settled["unready"].as_str(), settled["stale"].as_str()), ("0", "0"), "{settled:?}");
    world.command("REPOINT green EPOCH 1").await;
    world.command("RELEASE EPOCH 1").await;
    world.client().await.batch_execute("notify c, 'there'").await.unwrap();
    assert_eq!(next(&mut hears).await, "there");
}
