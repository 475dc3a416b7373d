//! How clients take the read route, and where it leads them.

use std::collections::BTreeMap;
use std::time::Duration;

use pgteal_testkit::wait_until;
use tokio_postgres::NoTls;
use tokio_postgres::config::TargetSessionAttrs;

use crate::fleet::{Fleet, connect, port_of, said};
use crate::world::value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_are_spread_over_the_replicas_and_see_what_a_replica_says() {
    let fleet = Fleet::new(2, 0, "").await;
    let [one, two] = fleet.blue.as_slice() else { panic!() };
    let clients = futures::future::join_all((0..30).map(|_| fleet.reader())).await;
    let mut on = BTreeMap::<u16, Vec<_>>::new();
    for client in clients {
        on.entry(port_of(&client).await).or_default().push(client);
    }
    let counts: Vec<_> = on.iter().map(|(port, clients)| (*port, clients.len())).collect();
    let mut expected = vec![(one.port(), 15), (two.port(), 15)];
    expected.sort_unstable();
    assert_eq!(counts, expected);
    // Those of one leave: the next ones go there.
    on.remove(&one.port());
    fleet.until_sessions(one, 0).await;
    let mut more = Vec::new();
    for _ in 0..15 {
        more.push(fleet.reader().await);
        assert_eq!(port_of(more.last().unwrap()).await, one.port());
    }
    for (server, sessions, route) in
        [(one, "15", "read"), (two, "15", "read"), (&fleet.world.blue, "0", "write")]
    {
        let row = fleet.shown(server).await;
        assert_eq!((row["sessions"].as_str(), row["route"].as_str()), (sessions, route), "{row:?}");
    }
    assert_eq!(fleet.metric("replica_connections", one).await, Some(15.0));
    assert_eq!(fleet.metric("replica_fit", one).await, Some(1.0));
    let upstreams = fleet.world.rows("SHOW UPSTREAMS").await;
    assert_eq!(upstreams.iter().filter(|row| row["port"] == two.port().to_string()).count(), 15);
    assert!(fleet.world.rows("SHOW SESSIONS").await.iter().all(|row| row["reads"] == "yes"));

    let reader = &more[0];
    for (sql, expected) in [
        ("show transaction_read_only", "on"),
        ("select pg_is_in_recovery()", "t"),
        ("prepare q(int) as select $1 + 1; execute q(41)", "42"),
        ("begin; set local work_mem = '7MB'; show work_mem; commit", "7MB"),
    ] {
        assert_eq!(value(reader, sql).await, expected, "{sql}");
    }
    let statement = reader.prepare("select who() || $1::text").await.unwrap();
    assert_eq!(reader.query_one(&statement, &[&"!"]).await.unwrap().get::<_, String>(0), "blue!");
    for sql in ["insert into t values (1)", "listen a", "create temp table u (id int)"] {
        let (through, direct) =
            (reader.simple_query(sql).await.unwrap_err(), one.connect("postgres").await.unwrap());
        assert_eq!(said(&through), said(&direct.simple_query(sql).await.unwrap_err()), "{sql}");
    }
    let (slept, ()) = tokio::join!(reader.simple_query("select pg_sleep(600)"), async {
        let busy = async || {
            let busy = fleet.shown(one).await["busy"].clone();
            if busy == "1" { Ok(()) } else { Err(busy) }
        };
        wait_until("the reader to be busy", Duration::from_secs(30), busy).await.unwrap();
        reader.cancel_token().cancel_query(NoTls).await.unwrap();
    });
    assert_eq!(said(&slept.unwrap_err()).0, "57014");
    // What drivers ask who want a standby (`target_session_attrs`).
    connect(fleet.reads().target_session_attrs(TargetSessionAttrs::ReadOnly)).await.unwrap();
    // Writers are where they were.
    assert_eq!(port_of(&fleet.world.client().await).await, fleet.world.blue.port());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_ask_for_the_read_route_in_its_startup_packet() {
    let fleet = Fleet::new(1, 0, "").await;
    let (primary, replica) = (fleet.world.blue.port(), fleet.blue[0].port());
    for (options, port, work_mem) in [
        ("-c pgteal.route=read", replica, "4MB"),
        ("-c work_mem=7MB --pgteal.route=read", replica, "7MB"),
        ("-cpgteal.route=write -c work_mem=7MB", primary, "7MB"),
        ("-c work_mem=7MB", primary, "7MB"),
    ] {
        let client = connect(fleet.world.client_config().options(options)).await.unwrap();
        assert_eq!(port_of(&client).await, port, "{options}");
        assert_eq!(value(&client, "show work_mem").await, work_mem, "{options}");
        assert_eq!(value(&client, "select current_setting('pgteal.route', true)").await, "", "{options}");
    }
    for (config, message) in [
        (
            fleet.world.client_config().options("-c pgteal.route=reed"),
            "invalid value for parameter \"pgteal.route\": \"reed\" (read, write)",
        ),
        (
            fleet.reads().options("-c pgteal.route=write"),
            "every client of this address is a reader, and pgteal.route says write",
        ),
    ] {
        let error = connect(config).await.map(drop).unwrap_err();
        assert_eq!(said(&error), ("22023".into(), message.into()));
    }
}
