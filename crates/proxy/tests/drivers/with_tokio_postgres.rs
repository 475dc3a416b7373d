//! tokio-postgres, in this process. Whatever it has in flight at once has a Sync each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join, join_all, try_join_all};
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::arena::Arena;
use crate::play::Play;
use crate::servers::PASSWORD;
use crate::world::value;
use crate::{At, CASES};

/// The driver has no words for a pipeline that is left without its Sync.
pub(crate) const WITHOUT: [&str; 1] = ["in_open_pipeline"];

const SAY: &str = "insert into said (session, what) values (current_setting('application_name'), $1)";
const STORY: &str = "select string_agg(what || '@' || side, ' ' order by at) from said
    where session = current_setting('application_name')";
const LOCKS: &str = "select string_agg(objid || ' ' || mode, ', ' order by objid) from pg_locks
    where locktype = 'advisory' and pid = pg_backend_pid()";
const SETTINGS: &str = "select concat_ws(', ', current_user, current_setting('work_mem'), current_setting('my.own'),
    current_setting('search_path'), current_setting('TimeZone'), current_setting('default_transaction_isolation'))";
const WAIT: &str = "select pg_advisory_xact_lock_shared(4711)";
const LONG: &str = "copy (select who(), repeat('x', 1000) from generate_series(1, 60000)) to stdout";

/// A session's client, what it is notified of, and the steps of its case.
struct Session {
    c: Client,
    news: mpsc::Receiver<String>,
    arrived: mpsc::Sender<()>,
    go: mpsc::Receiver<()>,
}

impl Session {
    async fn next(&mut self) {
        step(&self.arrived, &mut self.go).await;
    }

    async fn say(&self, what: &str) {
        self.c.execute(SAY, &[&what]).await.unwrap();
    }

    async fn run(&self, sql: &str) {
        self.c.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn value(&self, sql: &str) -> String {
        value(&self.c, sql).await
    }

    async fn sides(&self) -> String {
        let sql = "select string_agg(side, ', ' order by side) from (select side || ' ' || count(*) as side from said
            where session = current_setting('application_name') group by side) s";
        self.value(sql).await
    }
}

async fn step(arrived: &mpsc::Sender<()>, go: &mut mpsc::Receiver<()>) {
    arrived.send(()).await.unwrap();
    go.recv().await.unwrap();
}

fn case(name: &str, s: Session) -> BoxFuture<'static, ()> {
    match name {
        "idle" => idle(s).boxed(),
        "in_transaction" => in_transaction(s).boxed(),
        "in_pipeline" => in_pipeline(s).boxed(),
        "in_copy_in" => in_copy_in(s).boxed(),
        "in_copy_out" => in_copy_out(s).boxed(),
        "with_cursor" => with_cursor(s).boxed(),
        "with_held_cursor" => with_held_cursor(s).boxed(),
        "with_prepared_statements" => with_prepared_statements(s).boxed(),
        "with_listen" => with_listen(s).boxed(),
        "with_advisory_locks" => with_advisory_locks(s).boxed(),
        "with_settings" => with_settings(s).boxed(),
        "tls_and_channel_binding" => tls_and_channel_binding(s).boxed(),
        other => panic!("{other}: no such case"),
    }
}

async fn idle(mut s: Session) {
    s.say("before").await;
    s.next().await;
    s.say("after").await;
    assert_eq!(s.value(STORY).await, "before@blue after@green");
}

async fn in_transaction(mut s: Session) {
    s.run("begin").await;
    s.say("before").await;
    s.next().await;
    s.say("during").await;
    assert_eq!(s.value(STORY).await, "before@blue during@blue");
    s.run("commit").await;
    s.next().await;
    s.run("begin").await;
    s.say("after").await;
    assert_eq!(s.value(STORY).await, "before@blue during@blue after@green");
    s.run("commit").await;
}

type Answer = Result<(i32, String), tokio_postgres::Error>;

/// Twenty questions and twenty rows, in flight at once. In the order of the first poll they are sent.
async fn stretch(c: &Client, ask: &Statement, say: &Statement, from: i32) -> Vec<Answer> {
    let each = |n: i32| async move {
        let what = format!("line {n}");
        let (question, row): ([&(dyn ToSql + Sync); 1], [&(dyn ToSql + Sync); 1]) = ([&n], [&what]);
        let (answer, said) = tokio::join!(c.query_one(ask, &question), c.execute(say, &row));
        said?;
        answer.map(|row| (row.get(0), row.get(1)))
    };
    join_all((from..from + 20).map(each)).await
}

async fn in_pipeline(mut s: Session) {
    let ask = s.c.prepare("select $1::int4, who()").await.unwrap();
    let say = s.c.prepare(SAY).await.unwrap();
    let wait = s.c.prepare(WAIT).await.unwrap();
    let Session { c, arrived, go, .. } = &mut s;
    let early = async { join(c.query(&wait, &[]), stretch(c, &ask, &say, 0)).await.1 };
    // Clients are held, and what was sent before is under way: what is sent now comes behind it.
    let late = async {
        step(arrived, go).await;
        let late = stretch(c, &ask, &say, 20);
        join(late, step(arrived, go)).await.0
    };
    let (early, late) = join(early, late).await;
    let rows = early.into_iter().chain(late).map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
    assert!(rows.is_sorted_by_key(|row| row.1.clone()) && rows[0].1 == "blue", "{rows:?}");
    s.say("after").await;
    assert_eq!(s.value("select count(*) from said where session = 'in_pipeline'").await, "41");
}

async fn in_copy_in(mut s: Session) {
    let mut copy =
        Box::pin(s.c.copy_in::<_, bytes::Bytes>("copy said (session, what) from stdin").await.unwrap());
    for n in 0..1000 {
        copy.send(format!("in_copy_in\tline {n}\n").into()).await.unwrap();
    }
    s.next().await;
    for n in 1000..2000 {
        copy.send(format!("in_copy_in\tline {n}\n").into()).await.unwrap();
    }
    assert_eq!(copy.as_mut().finish().await.unwrap(), 2000);
    s.next().await;
    s.say("after").await;
    assert_eq!(s.sides().await, "blue 2000, green 1");
}

async fn in_copy_out(mut s: Session) {
    let mut copy = Box::pin(s.c.copy_out(LONG).await.unwrap());
    let first = copy.next().await.unwrap().unwrap();
    s.next().await;
    let lines = copy.fold(usize::from(first.starts_with(b"blue\tx")), async |sum, line| {
        sum + usize::from(line.unwrap().starts_with(b"blue\tx"))
    });
    assert_eq!(lines.await, 60000);
    s.next().await;
    assert_eq!(s.value("select who()").await, "green");
}

async fn with_cursor(mut s: Session) {
    let sql = "select n, who() from generate_series(1, $1::int4) n";
    let rows = |some: Vec<tokio_postgres::Row>| {
        some.iter()
            .map(|row| format!("{}{}", row.get::<_, i32>(0), row.get::<_, &str>(1)))
            .collect::<Vec<_>>()
    };
    for side in ["blue", "green"] {
        let Session { c, arrived, go, .. } = &mut s;
        let transaction = c.transaction().await.unwrap();
        let portal = transaction.bind(sql, &[&1000]).await.unwrap();
        let mut got = rows(transaction.query_portal(&portal, 10).await.unwrap());
        if side == "blue" {
            step(arrived, go).await;
        }
        got.extend(rows(transaction.query_portal(&portal, 0).await.unwrap()));
        assert_eq!(got, (1..=1000).map(|n| format!("{n}{side}")).collect::<Vec<_>>());
        transaction.commit().await.unwrap();
        if side == "blue" {
            s.next().await;
        }
    }
}

async fn with_held_cursor(mut s: Session) {
    s.run("declare kept cursor with hold for select generate_series(1, 1000)").await;
    s.next().await;
    let error = s.c.batch_execute("fetch kept").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN), "{error:?}");
}

async fn with_prepared_statements(mut s: Session) {
    let texts = (0..50).map(|n| format!("select ($1::int4 + {n}) || who()")).collect::<Vec<_>>();
    let statements = try_join_all(texts.iter().map(|text| s.c.prepare(text))).await.unwrap();
    for side in ["blue", "green"] {
        for (n, statement) in (0i32..).zip(&statements) {
            let row = s.c.query_one(statement, &[&n]).await.unwrap();
            assert_eq!(row.get::<_, String>(0), format!("{}{side}", n + n));
        }
        assert_eq!(s.value("select count(*) from pg_prepared_statements").await, "50");
        if side == "blue" {
            s.next().await;
        }
    }
}

async fn with_listen(mut s: Session) {
    s.run("listen news").await;
    s.next().await;
    for want in ["from blue", "from green"] {
        let news = tokio::time::timeout(Duration::from_secs(30), s.news.recv()).await;
        assert_eq!(news.ok().flatten().as_deref(), Some(want));
    }
    assert_eq!(s.value("select who()").await, "green");
}

async fn with_advisory_locks(mut s: Session) {
    for lock in ["lock(1)", "lock(1)", "lock_shared(2)", "lock(3)", "unlock(3)"] {
        s.run(&format!("select pg_advisory_{lock}")).await;
    }
    assert_eq!(s.value(LOCKS).await, "1 ExclusiveLock, 2 ShareLock");
    s.next().await;
    let locks = s.value(&format!("select who() || ' ' || ({LOCKS})")).await;
    assert_eq!(locks, "green 1 ExclusiveLock, 2 ShareLock");
    for unlocked in ["t", "t", "f"] {
        assert_eq!(s.value("select pg_advisory_unlock(1)").await, unlocked);
    }
}

async fn with_settings(mut s: Session) {
    s.run("set work_mem = '7MB'; set search_path = pg_catalog, public; set timezone = 'Asia/Tokyo'").await;
    s.run("set session characteristics as transaction isolation level repeatable read; set role reader")
        .await;
    s.c.query_one("select set_config('my.own', $1, false)", &[&"it's"]).await.unwrap();
    let want = "reader, 7MB, it's, pg_catalog, public, Asia/Tokyo, repeatable read";
    assert_eq!(s.value(SETTINGS).await, want);
    s.next().await;
    assert_eq!(s.value(SETTINGS).await, want);
    assert_eq!(s.value("select who()").await, "green");
}

async fn tls_and_channel_binding(mut s: Session) {
    s.say("before").await;
    s.next().await;
    s.say("after").await;
    assert_eq!(s.value(STORY).await, "before@blue after@green");
    assert_eq!(s.value("select ssl from pg_stat_ssl where pid = pg_backend_pid()").await, "t");
}

async fn connect(name: &str, port: u16, ca: &[u8]) -> (Client, mpsc::Receiver<String>) {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user("scram_user").password(PASSWORD).dbname("postgres");
    config.application_name(name).ssl_mode(SslMode::Disable);
    if name != "tls_and_channel_binding" {
        let (client, connection) = config.connect(NoTls).await.unwrap();
        return (client, listen(connection));
    }
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.to_vec().into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.ssl_mode(SslMode::Require).channel_binding(ChannelBinding::Require);
    let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await.unwrap();
    (client, listen(connection))
}

fn listen<S, T>(mut connection: tokio_postgres::Connection<S, T>) -> mpsc::Receiver<String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (heard, news) = mpsc::channel(100);
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(note) = message {
                let _ = heard.try_send(note.payload().to_owned());
            }
        }
    });
    news
}

/// One case under way.
struct Playing {
    at: At,
    task: JoinHandle<()>,
    arrived: mpsc::Receiver<()>,
    go: mpsc::Sender<()>,
}

pub(crate) fn play(arena: &Arena) -> Play {
    let (output, theirs) = tokio::io::duplex(1 << 16);
    let (input, ours) = tokio::io::duplex(1 << 16);
    let (port, ca) = (arena.port(), arena.certs.ca_der.clone());
    tokio::spawn(async move { perform(port, &ca, theirs, BufReader::new(ours).lines()).await });
    Play::new(output, input)
}

async fn perform(port: u16, ca: &[u8], mut output: DuplexStream, mut input: Lines<BufReader<DuplexStream>>) {
    let mut playing = BTreeMap::new();
    for (name, at) in CASES.into_iter().filter(|(name, _)| !WITHOUT.contains(name)) {
        let (c, news) = connect(name, port, ca).await;
        let ((arrived, mut arrives), (go, goes)) = (mpsc::channel(1), mpsc::channel(1));
        let task = tokio::spawn(case(name, Session { c, news, arrived, go: goes }));
        let _ = arrives.recv().await;
        playing.insert(name, Playing { at, task, arrived: arrives, go });
    }
    output.write_all(b"ready\n").await.unwrap();
    assert_eq!(input.next_line().await.unwrap().as_deref(), Some("held"));
    for one in playing.values().filter(|one| one.at != At::Inside) {
        let _ = one.go.send(()).await;
    }
    assert_eq!(input.next_line().await.unwrap().as_deref(), Some("finish"));
    for one in playing.values_mut().filter(|one| one.at == At::Inside) {
        let _ = one.go.send(()).await;
        let _ = one.arrived.recv().await;
        let _ = one.go.send(()).await;
    }
    output.write_all(b"finished\n").await.unwrap();
    for (name, one) in playing {
        let verdict = match one.task.await {
            Ok(()) => "ok".to_owned(),
            Err(error) => match error.into_panic().downcast::<String>() {
                Ok(why) => why.replace('\n', " "),
                Err(_) => "it panicked".to_owned(),
            },
        };
        output.write_all(format!("{name}: {verdict}\n").as_bytes()).await.unwrap();
    }
    output.write_all(b"done\n").await.unwrap();
}
