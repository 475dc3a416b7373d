//! A stream from an older to a newer release and its opposite: copy, marker, fence in the way of apply, reverse slot,
//! and the removal of everything with the publisher gone.

use std::time::Duration;

use pgteal_postgres::copy::{self, SyncState};
use pgteal_postgres::fence::Fence;
use pgteal_postgres::names::{self, Stream};
use pgteal_postgres::subscription::{self, NewSubscription};
use pgteal_postgres::wait::{self, Look};
use pgteal_postgres::{
    ConnInfo, Purpose, Session, database, digest, inventory, marker, publication, replication_origin, schema,
    slot, state, wal,
};

use crate::cluster::{ROLE, cluster, majors, pairs, state as sqlstate};
use crate::fence::install;

const ID: &str = "stream23";
const BOUND: Duration = Duration::from_secs(20);

const TABLES: &str = "CREATE SCHEMA app; CREATE TABLE app.t (id int PRIMARY KEY, v text);
    CREATE TABLE app.f (v text); ALTER TABLE app.f REPLICA IDENTITY FULL";

async fn wait_ready(s: &Session, name: &str) {
    wait::until(s, "every table to be ready", BOUND, Duration::from_millis(50), || async {
        let left = copy::unapplied(s, name).await?;
        Ok(if left.is_empty() { Look::Reached(()) } else { Look::NotYet(format!("{left:?}")) })
    })
    .await
    .unwrap();
}

async fn wait_marker(from: &Session, to: &Session) {
    let n = marker::write(from).await.unwrap();
    marker::wait(to, n, BOUND).await.unwrap();
}

async fn count(s: &Session, table: &str) -> String {
    let rows = s.text_rows("counting", &format!("SELECT count(*) FROM {table}")).await.unwrap();
    rows[0][0].clone().unwrap()
}

fn new<'a>(
    name: &'a str,
    slot: &'a str,
    from: &'a ConnInfo,
    database: &'a str,
    copy_data: bool,
) -> NewSubscription<'a> {
    NewSubscription { name, publication: name, slot, publisher: from, database, copy_data, deployment: ID }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_goes_there_and_back() {
    for (old, newer) in pairs() {
        there_and_back(old, newer).await;
    }
}

async fn there_and_back(old: u32, newer: u32) {
    let db_name = format!("stream_{old}");
    let db = db_name.as_str();
    let (a_server, mut a) = cluster(old).database(db).await;
    let b_db = format!("{db}_b");
    let (b_server, mut b) = cluster(newer).database(&b_db).await;
    a.batch("setup", TABLES).await.unwrap();
    a.batch("setup", "INSERT INTO app.t SELECT i, 'x' FROM generate_series(1, 1000) i").await.unwrap();
    b.batch("setup", TABLES).await.unwrap();
    let fence = Fence::new(ID, ROLE);
    install(&fence, &mut a).await;
    install(&fence, &mut b).await;
    fence.raise(&b, 1).await.unwrap();
    state::put(&a, "only here", &serde_json::json!({"x": 1}), 1, ID).await.unwrap();

    let fwd = names::stream(ID, Stream::Forward);
    let fwd_slot = names::slot(ID, Stream::Forward, database::current_oid(&a).await.unwrap());
    for _ in 0..2 {
        publication::create(&a, &fwd, ID).await.unwrap();
        slot::create_logical(&a, &fwd_slot, "pgoutput").await.unwrap();
        subscription::create(&b, &new(&fwd, &fwd_slot, a_server.conninfo(), db, true)).await.unwrap();
    }
    let waiting = copy::progress(&b, &fwd).await.unwrap();
    assert_eq!(waiting.len(), 2);
    assert!(waiting.iter().all(|t| t.state == SyncState::Initial), "{waiting:?}");
    subscription::enable(&b, &fwd).await.unwrap();
    wait_ready(&b, &fwd).await;
    subscription::wait_started(&b, &fwd, BOUND).await.unwrap();
    a.batch("writing", "INSERT INTO app.f VALUES ('a'), ('b'); DELETE FROM app.f WHERE v = 'a'; UPDATE app.t SET v = 'y' WHERE id = 1")
        .await
        .unwrap();
    // Somebody else's replication into the publisher writes under an origin of its own.
    for step in [
        format!("SELECT pg_replication_origin_create('cdc_{old}')"),
        format!("SELECT pg_replication_origin_session_setup('cdc_{old}')"),
        "INSERT INTO app.f VALUES ('by origin')".to_owned(),
        "SELECT pg_replication_origin_session_reset()".to_owned(),
        format!("SELECT pg_replication_origin_drop('cdc_{old}')"),
    ] {
        a.batch("writing under an origin", &step).await.unwrap();
    }
    wait_marker(&a, &b).await;
    assert_eq!(count(&b, "app.f WHERE v = 'by origin'").await, "1", "{old}->{newer}");
    for table in ["t", "f"] {
        let name = pgteal_postgres::catalog::TableName::new("app", table);
        let (left, right) =
            (digest::table(&a, &name).await.unwrap(), digest::table(&b, &name).await.unwrap());
        assert_eq!(left, right, "{old}->{newer}: {name} through the raised fence");
    }
    assert!(state::get(&b, "only here").await.unwrap().is_none(), "state is not replicated");
    assert_eq!(state::get(&b, "fence").await.unwrap().unwrap().value["raised"], true);
    let client = cluster(newer).client(&b_db).await;
    assert_eq!(sqlstate(client.batch_execute("DELETE FROM app.t").await), "25006");
    let late = "CREATE TABLE app.late (id int PRIMARY KEY)";
    b.batch("a table the stream does not know", late).await.unwrap();
    let unknown = copy::unapplied(&b, &fwd).await.unwrap();
    assert_eq!(unknown.unknown.len(), 1, "{unknown:?}");
    b.batch("removing it", "DROP TABLE app.late").await.unwrap();
    assert!(replication_origin::position(&b, &fwd).await.unwrap().is_some());

    // The opposite stream, made before anything is written over there.
    let rev = names::stream(ID, Stream::Reverse);
    let rev_slot = names::slot(ID, Stream::Reverse, database::current_oid(&b).await.unwrap());
    publication::create(&b, &rev, ID).await.unwrap();
    slot::create_logical(&b, &rev_slot, "pgoutput").await.unwrap();
    subscription::create(&a, &new(&rev, &rev_slot, b_server.conninfo(), &b_db, false)).await.unwrap();
    assert!(
        copy::unapplied(&a, &rev).await.unwrap().is_empty(),
        "{old}: without copy all tables are ready at once"
    );
    fence.raise(&a, 2).await.unwrap();
    wait_marker(&a, &b).await;
    let flushed = wal::flush(&b).await.unwrap();
    let at = slot::advance_to_now(&b, &rev_slot).await.unwrap();
    assert!(at >= flushed, "{at} {flushed}");
    assert!(
        slot::advance(&b, &rev_slot, flushed).await.unwrap() >= at,
        "an earlier position changes nothing"
    );
    subscription::disable(&b, &fwd).await.unwrap();
    subscription::wait_stopped(&b, &fwd, BOUND).await.unwrap();
    fence.lower(&b, 2).await.unwrap();
    client.batch_execute("RESET ALL; SET default_transaction_read_only = off").await.unwrap();
    client
        .batch_execute("INSERT INTO app.t VALUES (5000, 'new side'); DELETE FROM app.t WHERE id = 2")
        .await
        .unwrap();
    subscription::enable(&a, &rev).await.unwrap();
    subscription::wait_started(&a, &rev, BOUND).await.unwrap();
    wait_marker(&b, &a).await;
    assert_eq!((count(&a, "app.t").await, count(&b, "app.t").await), ("1000".to_owned(), "1000".to_owned()));
    let errors = subscription::find(&a, &rev).await.unwrap().unwrap().apply_errors;
    assert!(errors.is_none_or(|n| n == 0), "{old}: {errors:?}");

    remove_all(&a, &b, [&fwd, &rev], [&fwd_slot, &rev_slot]).await;
    fence.lower(&a, 3).await.unwrap();
    for s in [&mut a, &mut b] {
        fence.remove(s, BOUND, &mut |_| {}).await.unwrap();
        schema::remove(s, ID).await.unwrap();
        let left = inventory::objects(s, ID).await.unwrap();
        assert!(left.ours.is_empty(), "{left:?}");
    }
}

async fn remove_all(a: &Session, b: &Session, streams: [&str; 2], slots: [&str; 2]) {
    let ours = inventory::objects(a, ID).await.unwrap().ours;
    // Publication, subscription, schema, event trigger, two tables with the fence, and the slot.
    assert!(ours.len() >= 7, "{ours:?}");
    for _ in 0..2 {
        subscription::drop(b, streams[0], ID).await.unwrap();
        subscription::drop(a, streams[1], ID).await.unwrap();
        slot::drop(a, slots[0], BOUND).await.unwrap();
        slot::drop(b, slots[1], BOUND).await.unwrap();
        publication::drop(a, streams[0], ID).await.unwrap();
        publication::drop(b, streams[1], ID).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_dropped_although_its_publisher_is_gone() {
    const ID: &str = "orphan23";
    let (old, newer) = *pairs().last().unwrap();
    let (a_server, a) = cluster(old).database("orphan").await;
    let (_, b) = cluster(newer).database("orphan_b").await;
    for s in [&a, &b] {
        s.batch("setup", TABLES).await.unwrap();
        schema::ensure(s, ID).await.unwrap();
    }
    let name = names::stream(ID, Stream::Forward);
    let slot_name = names::slot(ID, Stream::Forward, database::current_oid(&a).await.unwrap());
    publication::create(&a, &name, ID).await.unwrap();
    slot::create_logical(&a, &slot_name, "pgoutput").await.unwrap();
    let new =
        NewSubscription { deployment: ID, ..new(&name, &slot_name, a_server.conninfo(), "orphan", true) };
    subscription::create(&b, &new).await.unwrap();
    // A slot goes although the subscription that reads it is still there and comes back again and again.
    subscription::enable(&b, &name).await.unwrap();
    wait_ready(&b, &name).await;
    slot::drop(&a, &slot_name, BOUND).await.unwrap();
    assert!(slot::find(&a, &slot_name).await.unwrap().is_none());
    subscription::disable(&b, &name).await.unwrap();
    // The publisher cannot be reached any more.
    let sql = format!(
        "ALTER SUBSCRIPTION {} CONNECTION 'host=127.0.0.1 port=1 dbname=x connect_timeout=2'",
        pgteal_postgres::quote::ident(&name)
    );
    b.batch("cutting", &sql).await.unwrap();
    subscription::enable(&b, &name).await.unwrap();
    subscription::drop(&b, &name, ID).await.unwrap();
    assert!(subscription::find(&b, &name).await.unwrap().is_none());
    slot::drop(&a, &slot_name, BOUND).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_is_neither_adopted_nor_dropped() {
    let (old, _) = *pairs().last().unwrap();
    let (server, s) = cluster(old).database("foreign_db").await;
    let name = names::stream("other234", Stream::Forward);
    let quoted = pgteal_postgres::quote::ident(&name);
    s.batch("setup", &format!("CREATE PUBLICATION {quoted} FOR ALL TABLES")).await.unwrap();
    for result in [publication::create(&s, &name, ID).await, publication::drop(&s, &name, ID).await] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(&format!("publication {name} exists and is not ours")), "{error}");
    }
    slot::create_logical(&s, "pgteal_other234_fwd_9", "test_decoding").await.unwrap();
    slot::create_logical(&s, "pgteal_weird", "test_decoding").await.unwrap();
    let error = slot::create_logical(&s, "pgteal_weird", "pgoutput").await.unwrap_err().to_string();
    assert!(error.contains("it is for database foreign_db with plugin test_decoding"), "{error}");
    let found = inventory::objects(&s, ID).await.unwrap();
    let foreign: Vec<_> = found
        .foreign
        .iter()
        .filter(|o| o.database.as_deref() == Some("foreign_db"))
        .map(|o| (o.name.as_str(), o.deployment.as_deref()))
        .collect();
    assert_eq!(
        foreign,
        [(name.as_str(), None), ("pgteal_other234_fwd_9", Some("other234")), ("pgteal_weird", None)],
        "a publication without comment belongs to nobody"
    );
    assert!(found.ours.iter().all(|o| o.database.as_deref() != Some("foreign_db")));
    let other = server.connect("postgres", Purpose::control("other")).await.unwrap();
    assert!(slot::of_deployment(&other, "other234").await.unwrap().len() == 1);
    for name in ["pgteal_other234_fwd_9", "pgteal_weird"] {
        slot::drop(&other, name, BOUND).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_of_table_copies_are_known_without_asking_the_subscriber() {
    const ID: &str = "copies23";
    let (_, s) = cluster(*majors().last().unwrap()).database("copies").await;
    assert!(slot::of_table_copies(&s).await.unwrap().is_empty(), "nothing of ours is there");
    schema::ensure(&s, ID).await.unwrap();
    let names = ["pg_16433_sync_16394_7654321012345678901", "pg_16433_sync_16394_7654321012345678902"];
    for name in names {
        slot::create_logical(&s, name, "pgoutput").await.unwrap();
    }
    assert!(slot::of_table_copies(&s).await.unwrap().is_empty(), "nobody was remembered");
    slot::remember_subscriber(&s, 7_654_321_012_345_678_901, 1, ID).await.unwrap();
    let found: Vec<_> = slot::of_table_copies(&s).await.unwrap().into_iter().map(|slot| slot.name).collect();
    assert_eq!(found, names[..1]);
    for name in names {
        slot::drop(&s, name, BOUND).await.unwrap();
    }
}
