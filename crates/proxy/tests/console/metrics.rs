//! What Prometheus is told is what clients did and what the console says, in Prometheus' own format.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use pgteal_testkit::wait_until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{World, value};

const BOUND: Duration = Duration::from_secs(20);

async fn http(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(BOUND, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The format by its documentation ("Exposition formats", text format 0.0.4) and by what `promtool check metrics` asks: each
/// family once, with help and type before its samples, counters named `_total`, histograms whole and cumulative.
fn parse(page: &str) -> BTreeMap<String, f64> {
    let (mut samples, mut kinds, mut helped) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let mut family = String::new();
    assert!(page.ends_with('\n'), "the last line ends");
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(helped.insert(name.to_owned()) && !text.is_empty(), "{line}");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(helped.contains(name) && is_name(name) && name.starts_with("pgteal_proxy_"), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            family = name.to_owned();
            continue;
        }
        let (series, number) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let part = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} in {family}"));
        let parts: &[&str] =
            if kinds[&family] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(parts.contains(&part) && is_name(name), "{line}");
        for label in labels.strip_suffix('}').unwrap().split(',').filter(|label| !label.is_empty()) {
            let (label, of) = label.split_once('=').unwrap();
            let quoted = of.len() >= 2 && of.starts_with('"') && of.ends_with('"');
            assert!(is_name(label) && quoted, "{line}");
        }
        let number: f64 = number.parse().unwrap();
        assert!(number >= 0.0 && number.is_finite(), "{line}");
        assert!(samples.insert(series.to_owned(), number).is_none(), "twice: {line}");
    }
    for (name, _) in kinds.iter().filter(|(_, kind)| *kind == "histogram") {
        let mut buckets: Vec<(f64, f64)> = samples
            .iter()
            .filter_map(|(series, count)| {
                let le = series.strip_prefix(&format!("{name}_bucket{{le=\""))?.strip_suffix("\"}")?;
                Some((if le == "+Inf" { f64::INFINITY } else { le.parse().unwrap() }, *count))
            })
            .collect();
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{name}: {buckets:?}");
        assert_eq!(buckets.last().unwrap(), &(f64::INFINITY, samples[&format!("{name}_count")]));
    }
    samples
}

/// Prometheus' own checker, where it is installed.
fn promtool(page: &str) {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else { return };
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn scrape(world: &World) -> BTreeMap<String, f64> {
    let address = world.proxy.as_ref().unwrap().metrics().unwrap();
    let (head, page) = http(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    promtool(&page);
    parse(&page).into_iter().map(|(name, of)| (name.replace("pgteal_proxy_", ""), of)).collect()
}

async fn world(schema: &str) -> World {
    // Top-level keys of the file stand before its tables.
    World::with_top(schema, "metrics = \"127.0.0.1:0\"\n", "").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_sees_what_clients_do() {
    let world = world("create table t ()").await;
    let (client, busy) = (world.client().await, world.client().await);
    let both = async || {
        let now = scrape(&world).await;
        if now["clients"] == 2.0 { Ok(now) } else { Err(now["clients"]) }
    };
    let before = wait_until("both are sessions", BOUND, both).await.unwrap();
    assert_eq!(before["clients_max"], 10_000.0);
    assert_eq!(before["side_active{side=\"blue\"}"], 1.0);
    assert_eq!(before["queries_total"], 0.0);
    let (sent, received) = ("select repeat('x', 1000)", 1000.0);
    for _ in 0..10 {
        value(&client, sent).await;
    }
    busy.batch_execute("begin; create temp table p ()").await.unwrap();
    let now = scrape(&world).await;
    assert_eq!(now["queries_total"], 11.0);
    let bytes = "begin; create temp table p ()".len() + 10 * sent.len() + 11 * 6;
    assert_eq!(now["received_bytes_total"], bytes as f64);
    let told = now["sent_bytes_total"];
    assert!((10.0 * received..20.0 * received).contains(&told), "{told}");
    assert_eq!(now["clients_busy"], 1.0);
    assert_eq!(now["sessions{class=\"draining\"}"], 1.0);
    assert_eq!(now["sessions{class=\"movable\"}"], 1.0);
    assert!(now["longest_transaction_seconds"] > 0.0);
    assert_eq!(now["upstreams{side=\"blue\",state=\"session\"}"], 2.0);
    // A statement that runs is cancelled.
    let token = client.cancel_token();
    let sleeps = tokio::spawn(async move {
        let error = client.simple_query("select pg_sleep(60)").await.expect_err("cancelled");
        assert_eq!(error.code().unwrap().code(), "57014");
        client
    });
    let seen = async || {
        let rows = world.rows("SHOW STATE").await;
        if rows[0]["busy"] == "2" { Ok(()) } else { Err(format!("{rows:?}")) }
    };
    wait_until("the statement is under way", BOUND, seen).await.unwrap();
    token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    let client = sleeps.await.unwrap();
    assert_eq!(scrape(&world).await["cancel_requests_total"], 1.0);

    busy.batch_execute("commit").await.unwrap();
    let looked = async || {
        world.command("LOOK").await;
        let pinned = scrape(&world).await["sessions{class=\"pinned\"}"];
        if pinned == 1.0 { Ok(()) } else { Err(pinned) }
    };
    wait_until("who has a temporary table is looked at", BOUND, looked).await.unwrap();
    drop(busy);
    let gone = async || {
        let clients = scrape(&world).await["clients"];
        if clients == 1.0 { Ok(()) } else { Err(clients) }
    };
    wait_until("the other client is gone", BOUND, gone).await.unwrap();
    let after = scrape(&world).await;
    assert_eq!(after["queries_total"], 13.0, "what was done by who is gone counts on");

    world.command("WARM green EPOCH 7 LIMIT 20000").await;
    assert_eq!(scrape(&world).await["upstreams{side=\"green\",state=\"ahead\"}"], 1.0);
    world.command("HOLD EPOCH 7 LIMIT 60000").await;
    let waits = tokio::spawn(async move { (value(&client, "select who()").await, client) });
    let held = async || {
        let now = scrape(&world).await;
        if now["clients_held{kind=\"statement\"}"] == 1.0 { Ok(now) } else { Err(format!("{now:?}")) }
    };
    let held = wait_until("the statement is held", BOUND, held).await.unwrap();
    assert_eq!((held["holding"], held["epoch"], held["hold_seconds_count"]), (1.0, 7.0, 0.0));
    assert!((0.0..60.0).contains(&held["hold_remaining_seconds"]));
    world.command("DRAIN EPOCH 7 BUDGET 5000").await;
    world.command("SETTLE EPOCH 7 LIMIT 5000").await;
    world.command("REPOINT green EPOCH 7").await;
    world.command("RELEASE EPOCH 7").await;
    let (answer, _client) = waits.await.unwrap();
    assert_eq!(answer, "green");
    let now = scrape(&world).await;
    assert_eq!((now["holding"], now["hold_seconds_count"], now["stall_seconds_count"]), (0.0, 1.0, 1.0));
    // It goes on when its thread has heard of the release, so it may have waited longer than the hold has lasted.
    assert!(now["stall_seconds_sum"] > 0.0 && now["stall_seconds_sum"] < 60.0);
    assert_eq!((now["side_active{side=\"blue\"}"], now["side_active{side=\"green\"}"]), (0.0, 1.0));
    let stats = world.command("SHOW STATS").await;
    for (column, metric) in [
        ("queries", "queries_total"),
        ("received_bytes", "received_bytes_total"),
        ("sent_bytes", "sent_bytes_total"),
        ("accepted", "connections_accepted_total"),
        ("cancel_requests", "cancel_requests_total"),
        ("ended_57p01", "sessions_terminated_total"),
    ] {
        assert_eq!(stats[column], now[metric].to_string(), "{column}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_metrics_badly_is_told_and_costs_little() {
    let world = world("").await;
    let address = world.proxy.as_ref().unwrap().metrics().unwrap();
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\nab", "405"),
        ("PRI * HTTP/2.0\r\n\r\n", "400"),
        (&long, "431"),
    ] {
        let (head, _) = http(address, request).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
    // As many that say nothing as are served at once: each has its bound, and then others have their turn.
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert_eq!(scrape(&world).await["clients"], 0.0);
    for mut stream in silent {
        let mut nothing = Vec::new();
        tokio::time::timeout(BOUND, stream.read_to_end(&mut nothing)).await.expect("closed").unwrap();
        assert!(nothing.is_empty());
    }
}
