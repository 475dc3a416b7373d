//! A client leaves its session in every state that there is: the next one finds a new session, or another connection.

use bytes::BytesMut;
use pgteal_wire::message::frontend::{put_bind, put_parse, put_query, put_sync, put_terminate};
use pgteal_wire::message::report::Fields;
use pgteal_wire::startup::{ProtocolVersion, StartupMessage};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::world::raw::{Raw, first_value, tags};
use super::{connect, idle, lasting, nobody};

const SCHEMA: &str = "create role other; grant other to postgres; create table t (id serial, v int); \
    create function mark() returns text language sql as $$select set_config('work_mem', '9MB', false)$$; \
    select pg_replication_origin_create('o');";

/// What a session is, in every respect that a client can ask for.
const SESSION: &str = "select string_agg(concat_ws('=', name, setting, source), ',' order by name) from pg_settings \
        where name not in ('transaction_read_only'); \
    select current_user || ',' || session_user || ',' || current_setting('role'); \
    select count(*) from pg_prepared_statements; \
    select count(*) from pg_cursors where is_holdable; \
    select count(*) from pg_listening_channels(); \
    select count(*) from pg_locks where locktype = 'advisory'; \
    select count(*) from pg_class where relnamespace = pg_my_temp_schema(); \
    select count(*) from pg_proc where pronamespace = pg_my_temp_schema(); \
    select count(*) from pg_type where typnamespace = pg_my_temp_schema(); \
    select coalesce(current_setting('app.tenant', true), 'missing')";

/// What a client does, and whether its connection is used again.
const STATES: &[(&str, bool)] = &[
    ("select 1", true),
    (
        "set work_mem = '8MB'; set timezone = 'Asia/Tokyo'; set datestyle = 'German'; set search_path = nowhere",
        true,
    ),
    ("set application_name = 'renamed'; set client_encoding = 'LATIN1'; set statement_timeout = '1h'", true),
    ("set session characteristics as transaction isolation level serializable, read only, deferrable", true),
    ("set default_transaction_read_only = on", true),
    ("select mark()", true),
    ("set role other", true),
    ("set session authorization other", true),
    ("set session authorization other; set role other; set work_mem = '8MB'", true),
    ("prepare p as select 1; execute p", true),
    ("create temp table s (id serial primary key, v text); insert into s values (1)", true),
    ("create temp view w as select 1; create temp sequence q; create type pg_temp.e as enum ('a')", true),
    ("create function pg_temp.f() returns int language sql as 'select 1'", true),
    ("select pg_advisory_lock(1), pg_advisory_lock(1), pg_advisory_lock_shared(2, 3)", true),
    ("listen room; listen hall; notify room", true),
    ("begin; declare c cursor with hold for select 1; commit", true),
    ("select nextval('t_id_seq'), setval('t_id_seq', 77)", true),
    ("begin; create temp table dropped () on commit drop; set local work_mem = '7MB'; commit", true),
    ("begin; insert into t values (default, 1)", false),
    ("begin; select 1/0", false),
    ("set app.tenant = '7'", false),
    ("select set_config('app.tenant', '7', false)", false),
    ("load 'auto_explain'", false),
    ("select setseed(0.5)", false),
    ("select pg_replication_origin_session_setup('o')", false),
];

async fn answers(client: &Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let values = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    values.collect()
}

async fn pid(client: &Client) -> String {
    answers(client, "select pg_backend_pid()").await.remove(0)
}

/// What the server says to `currval` and `lastval` in a session that has asked no sequence.
async fn sequences(client: &Client) -> [String; 2] {
    let mut codes = Vec::new();
    for sql in ["select currval('t_id_seq')", "select lastval()"] {
        let error = client.simple_query(sql).await.unwrap_err();
        codes.push(error.code().unwrap().code().to_owned());
    }
    codes.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_client_finds_a_new_session() {
    let world = lasting(SCHEMA).await;
    for side in ["blue", "green"] {
        let mut config = world.client_config();
        config.application_name("app");
        if side == "green" {
            world.switch("green", 1).await;
        }
        let first = connect(&config).await;
        let new = answers(&first, SESSION).await;
        assert_eq!(new.last().map(String::as_str), Some("missing"));
        drop(first);
        nobody(&world).await;
        for (state, again) in STATES {
            let former = connect(&config).await;
            let before = pid(&former).await;
            let _ = former.simple_query(state).await;
            drop(former);
            nobody(&world).await;
            idle(&world, usize::from(*again)).await;
            let next = connect(&config).await;
            assert_eq!(pid(&next).await == before, *again, "{side}, {state}");
            assert_eq!(answers(&next, SESSION).await, new, "{side}, {state}");
            assert_eq!(sequences(&next).await, ["55000", "55000"], "{side}, {state}");
            next.simple_query("notify room; notify hall").await.unwrap();
            drop(next);
            nobody(&world).await;
        }
    }
}

/// Its name, what is said, and whether the connection is used again.
type Said = (&'static str, fn(&mut BytesMut), bool);

/// In single messages: what is in no catalogue, or only while it is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_the_protocol_stays() {
    let world = lasting(SCHEMA).await;
    let startup = |name: &'static str| {
        let params = [("user", "postgres"), ("database", "postgres"), ("application_name", name)];
        StartupMessage::new(ProtocolVersion::V3_0, params)
    };
    let said: [Said; 7] = [
        (
            "named",
            |out| {
                put_parse(out, b"s", b"select 1");
                put_sync(out);
            },
            true,
        ),
        (
            "unnamed",
            |out| {
                put_parse(out, b"", b"select 1");
                put_sync(out);
            },
            true,
        ),
        ("not answered yet", put_terminate_after_sync, false),
        ("unsynced", |out| put_parse(out, b"s", b"select 1"), false),
        ("half a message", |out| out.extend_from_slice(b"Q\0\0\0\x20select"), false),
        ("copying", |out| put_query(out, "copy t (v) from stdin"), false),
        ("waiting", |out| put_query(out, "select pg_sleep(600)"), false),
    ];
    for (name, said, again) in said {
        let mut former = Raw::open(world.port(), &startup(name)).await;
        former.until(b'Z').await;
        former.send(|out| put_query(out, "select pg_backend_pid()")).await;
        let pid = first_value(&former.until(b'Z').await);
        former.send(said).await;
        if again {
            former.until(b'Z').await;
        }
        drop(former);
        if name == "waiting" {
            // No server notices that nobody waits for its answer.
            world.blue.sql(&format!("select pg_terminate_backend({pid})")).await.unwrap();
        }
        nobody(&world).await;
        let mut next = Raw::open(world.port(), &startup(name)).await;
        next.until(b'Z').await;
        next.send(|out| put_query(out, "select pg_backend_pid()")).await;
        assert_eq!(first_value(&next.until(b'Z').await) == pid, again, "{name}");
        for statement in [&b""[..], b"s"] {
            next.send(|out| {
                put_bind::<&[u8]>(out, statement, &[]);
                put_sync(out);
            })
            .await;
            let answer = next.until(b'Z').await;
            // The unnamed one is not there, for the last thing said was a Query.
            assert_eq!(tags(&answer), "EZ", "{name}");
            assert_eq!(Fields::parse(&answer[0].1).unwrap().sqlstate(), "26000", "{name}");
        }
        drop(next);
        nobody(&world).await;
    }
}

fn put_terminate_after_sync(out: &mut BytesMut) {
    put_sync(out);
    put_terminate(out);
}

/// What is longer than what is read of a text may say anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_said_more_than_was_read_leaves_nothing() {
    let world = lasting(SCHEMA).await;
    for (padding, again) in [(1_000, true), (100_000, false)] {
        let former = connect(&world.client_config()).await;
        let before = pid(&former).await;
        former.simple_query(&format!("select 1 /*{}*/", "x".repeat(padding))).await.unwrap();
        drop(former);
        nobody(&world).await;
        let next = connect(&world.client_config()).await;
        assert_eq!(pid(&next).await == before, again, "{padding}");
        drop(next);
        nobody(&world).await;
    }
}
