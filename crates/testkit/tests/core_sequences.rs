//! Sequences carried between real servers: far ahead before the pause, exactly where a gap would hurt, and repaired when
//! one ran past its bound.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pgteal_core::carry::sequences::{Carrier, GAP, carry_exactly, is_carried};
use pgteal_postgres::{ConnInfo, Purpose, Server, Session};
use pgteal_testkit::Cluster;

const SEQUENCES: &str = r#"
    create sequence big; create sequence "Odd ""q" increment 10 cache 50; create sequence down increment -2;
    create sequence small as smallint; create sequence round as smallint minvalue 1 maxvalue 9 cycle;
    create sequence fresh start 500; create sequence near maxvalue 1000; create sequence int as integer;
    create table t (id bigint generated always as identity, s serial);"#;

async fn pair() -> ((Cluster, Cluster), Session, Session) {
    let (blue, green) = tokio::join!(Cluster::start_new(15), Cluster::start_new(18));
    let (blue, green) = (blue.unwrap(), green.unwrap());
    let mut sessions = Vec::new();
    for (name, cluster) in [("blue", &blue), ("green", &green)] {
        cluster.sql(SEQUENCES).await.unwrap();
        let info = ConnInfo::at("127.0.0.1", cluster.port(), "postgres").with_database("postgres");
        sessions
            .push(Server::new(name, info).unwrap().connect("postgres", Purpose::long("test")).await.unwrap());
    }
    let (green_session, blue_session) = (sessions.pop().unwrap(), sessions.pop().unwrap());
    ((blue, green), blue_session, green_session)
}

async fn next(s: &Session, sequence: &str) -> i64 {
    let sql = format!("select nextval('public.{sequence}')");
    s.query_one("test", &sql, &[]).await.unwrap().get(0).unwrap()
}

const ALL: [&str; 10] =
    ["big", "\"Odd \"\"q\"", "down", "small", "round", "fresh", "near", "int", "t_id_seq", "t_s_seq"];

#[tokio::test]
async fn no_value_is_given_out_twice_in_either_direction() {
    let (_clusters, blue, green) = pair().await;
    for name in ALL {
        for _ in 0..7 {
            next(&blue, name).await;
        }
    }
    let mut given: Vec<(&str, i64)> = Vec::new();
    for (from, to) in [(&blue, &green), (&green, &blue), (&blue, &green)] {
        let carrier = Carrier::advance(from, to, GAP).await.unwrap();
        assert!(carrier.missing.is_empty());
        let again = Carrier::advance(from, to, GAP).await.unwrap();
        assert_eq!(again.advanced, 0, "still far enough ahead");
        // Between the advance and the pause the serving side goes on, some beyond the bound.
        for name in ALL {
            given.push((name, next(from, name).await));
        }
        let beyond = next(from, "big").await + 3 * i64::from(GAP);
        from.batch("test", &format!("select setval('public.big', {beyond})")).await.unwrap();
        given.push(("big", beyond));
        let settled = again.settle(from, None, to).await.unwrap();
        assert_eq!(settled.repaired, 1, "big ran past its bound");
        assert_eq!(settled.exact, 2, "round cycles, near has no room");
        assert!(is_carried(from, to).await.unwrap());
        for name in ALL.into_iter().filter(|n| *n != "round") {
            let value = next(to, name).await;
            assert!(!given.contains(&(name, value)), "{name} gave out {value} twice");
            given.push((name, value));
        }
        assert_eq!(next(from, "round").await, next(to, "round").await, "a cycling one stands where it stood");
    }
}

#[tokio::test]
async fn exactly_means_exactly() {
    let (_clusters, blue, green) = pair().await;
    next(&blue, "big").await;
    blue.batch("test", "alter sequence public.fresh restart 777; select setval('public.int', 41, false)")
        .await
        .unwrap();
    green.batch("test", "select setval('public.big', 999999)").await.unwrap();
    assert!(!is_carried(&green, &blue).await.unwrap());
    assert_eq!(carry_exactly(&blue, &green).await.unwrap(), ALL.len());
    for name in ALL {
        assert_eq!(next(&blue, name).await, next(&green, name).await, "{name}");
    }
    // Without holes: the same, in the pause.
    green.batch("test", "drop sequence public.near").await.unwrap();
    for name in ["big", "fresh", "int"] {
        next(&blue, name).await;
    }
    let carrier = Carrier::advance(&blue, &green, 0).await.unwrap();
    assert_eq!((carrier.missing.len(), carrier.advanced), (1, 0));
    assert_eq!(carrier.settle(&blue, None, &green).await.unwrap().exact, ALL.len() - 1);
    for name in ["big", "fresh", "int"] {
        assert_eq!(next(&blue, name).await, next(&green, name).await, "{name}");
    }
}

/// Where there are many, two sessions look; what the second cannot say is asked of the first.
#[tokio::test]
async fn of_many_none_is_overlooked_with_a_second_session_or_without() {
    let (clusters, blue, green) = pair().await;
    let many =
        "do $$ begin for i in 1..600 loop execute format('create sequence many_%s', i); end loop; end $$";
    for cluster in [&clusters.0, &clusters.1] {
        cluster.sql(many).await.unwrap();
    }
    let info = ConnInfo::at("127.0.0.1", clusters.0.port(), "postgres").with_database("postgres");
    let second = Server::new("blue", info).unwrap();
    let second = second.connect("postgres", Purpose::long("second")).await.unwrap();
    let mut value = 1_000_000;
    for is_lost in [false, true] {
        let carrier = Carrier::advance(&blue, &green, GAP).await.unwrap();
        carrier.warm_second(&second).await.unwrap();
        value *= 10;
        for i in [1, 300, 301, 600] {
            blue.batch("test", &format!("select setval('public.many_{i}', {value})")).await.unwrap();
        }
        if is_lost {
            let end = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgteal/second'";
            blue.batch("test", end).await.unwrap();
        }
        let settled = carrier.settle(&blue, Some(&second), &green).await.unwrap();
        assert_eq!(settled.repaired, 4, "lost: {is_lost}");
        assert!(is_carried(&blue, &green).await.unwrap(), "lost: {is_lost}");
    }
}
