//! Clients that mean ill, and one beside them that works: what is not a message, what is one out of its place, connections that
//! never say who they are, as many connections as a machine can make, cancel requests by guessed keys, and a login that was
//! overheard. Each costs a bounded amount, is answered as a server answers it, and harms nobody else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod world;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pgteal_testkit::{Cluster, wait_until};
use pgteal_wire::cancel::CancelKey;
use pgteal_wire::message::authentication::Authentication;
use pgteal_wire::message::backend::parse_backend_key_data;
use pgteal_wire::message::frontend::{put_parse, put_query, put_sasl_initial, put_sasl_response, put_sync};
use pgteal_wire::message::report::Fields;
use pgteal_wire::scram::{ClientBinding, ScramClient};
use pgteal_wire::startup::{ProtocolVersion, StartupMessage, encode_cancel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use world::raw::Raw;
use world::{World, console, servers, value};

/// Longer than this no statement of a neighbour's may take, whatever others do: two cores, and others at work.
const SLOWEST: Duration = Duration::from_secs(5);
const BOUND: Duration = Duration::from_secs(30);

/// Somebody who works while others misbehave.
struct Neighbour {
    stop: Arc<AtomicBool>,
    works: JoinHandle<(u32, Duration)>,
}

impl Neighbour {
    fn begin(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let works = tokio::spawn(async move {
            let (mut statements, mut slowest) = (0, Duration::ZERO);
            while !until.load(SeqCst) || statements == 0 {
                let began = Instant::now();
                assert_eq!(value(&client, &format!("select {statements}")).await, statements.to_string());
                slowest = slowest.max(began.elapsed());
                statements += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (statements, slowest)
        });
        Self { stop, works }
    }

    /// All its statements succeeded, and none took too long.
    async fn end(self, what: &str) {
        self.stop.store(true, SeqCst);
        let ended = tokio::time::timeout(BOUND, self.works).await;
        let (statements, slowest) =
            ended.expect("the neighbour hangs").expect("a statement of the neighbour's failed");
        println!("{what}: the neighbour made {statements} statements, the slowest took {slowest:?}");
        assert!(slowest < SLOWEST, "{what}: {slowest:?}");
    }
}

fn message(tag: u8, length: u32, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// What follows whatever was said: who goes on answers it.
fn and_then() -> BytesMut {
    let mut out = BytesMut::new();
    put_sync(&mut out);
    put_query(&mut out, "select 'goes on'");
    out
}

/// What a connection answers to some bytes after its login: tags, and the SQLSTATE of each error.
async fn answer(port: u16, bytes: &[u8], closes: bool) -> Vec<String> {
    let startup =
        StartupMessage::new(ProtocolVersion::V3_0, [("user", "postgres"), ("database", "postgres")]);
    let mut raw = Raw::open(port, &startup).await;
    raw.until(b'Z').await;
    // Who has closed already does not read.
    let _ = raw.stream.write_all(bytes).await;
    if closes {
        raw.stream.shutdown().await.unwrap();
    } else {
        let _ = raw.stream.write_all(&and_then()).await;
    }
    let mut all = Vec::new();
    let goes_on = |body: &[u8]| body.windows(7).any(|some| some == b"goes on");
    let hears = async {
        loop {
            if let Ok(Some(frame)) = pgteal_wire::frame::take(&mut raw.inbox, 1 << 20) {
                match frame.tag {
                    b'E' => all.push(format!("E{}", Fields::parse(frame.body()).unwrap().sqlstate())),
                    b'D' if goes_on(frame.body()) => return "goes on",
                    b'S' | b'N' => {}
                    tag => all.push(char::from(tag).to_string()),
                }
            } else if !matches!(raw.stream.read_buf(&mut raw.inbox).await, Ok(1..)) {
                return "ends";
            }
        }
    };
    let end = tokio::time::timeout(BOUND, hears).await.unwrap_or("hangs");
    all.push(end.to_owned());
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_or_out_of_its_place_is_answered_as_the_server_does_and_harms_nobody() {
    let world = World::new("").await;
    let neighbour = Neighbour::begin(world.client().await);
    let mut unsynced = BytesMut::new();
    (0..20_000).for_each(|_| put_parse(&mut unsynced, b"", b"select 1"));
    let mut synced = BytesMut::new();
    (0..5_000).for_each(|_| put_sync(&mut synced));
    let cases: Vec<(&str, Vec<u8>, bool)> = vec![
        ("half a header", b"Q\0\0".to_vec(), true),
        ("half a body", message(b'Q', 400, b"select"), true),
        ("half a pipeline", unsynced[..unsynced.len() - 3].to_vec(), true),
        ("a length of 0", message(b'Q', 0, b""), false),
        ("a length of 3", message(b'Q', 3, b""), false),
        ("a length below 0", message(b'Q', u32::MAX, b""), false),
        ("a length of 2 GiB", message(b'Q', i32::MAX as u32, b"select"), false),
        ("a Sync of 20 kB", message(b'S', 20_004, &[0; 20_000]), false),
        ("a Sync with a body", message(b'S', 8, b"body"), false),
        ("a tag that is none", message(b'~', 4, b""), false),
        ("tag 0", message(0, 4, b""), false),
        ("a tag of the server's", message(b'Z', 5, b"I"), false),
        ("a password after the login", message(b'p', 8, b"abc\0"), false),
        ("a startup packet after the login", message(0, 8, b"\0\x03\0\0"), false),
        ("a query without its end", message(b'Q', 12, b"select 1"), false),
        ("a query of two strings", message(b'Q', 17, b"select 1\0more"), false),
        (
            "Bind of a statement that there is not",
            message(b'B', 14, b"\0none\0\0\0\0\0")[..15].to_vec(),
            false,
        ),
        ("Execute of a portal that there is not", message(b'E', 13, b"none\0\0\0\0\0"), false),
        ("Describe of a kind that there is not", message(b'D', 6, b"X\0"), false),
        ("Close of a kind that there is not", message(b'C', 6, b"X\0"), false),
        ("an empty Bind", message(b'B', 4, b""), false),
        ("a Parse with more types than it has", message(b'P', 8, b"\0\0\x7f\xff"), false),
        ("data of a COPY that there is not", message(b'd', 8, b"data"), false),
        ("the end of a COPY that there is not", message(b'c', 4, b""), false),
        ("a failure of a COPY that there is not", message(b'f', 5, b"\0"), false),
        ("a function call of nothing", message(b'F', 4, b""), false),
        ("thousands of units at once", synced.to_vec(), false),
    ];
    for (what, bytes, closes) in &cases {
        let direct = answer(world.blue.port(), bytes, *closes).await;
        let proxied = answer(world.port(), bytes, *closes).await;
        // Whoever goes in the middle may miss what was still to be said.
        let said = |all: &[String]| if *closes { all.last().unwrap().clone() } else { all.join(" ") };
        let (direct, proxied) = (said(&direct), said(&proxied));
        // Where the server merely closes, the proxy says why.
        let says_why = ["E08P01 ends", "E08006 ends"].contains(&proxied.as_str());
        let alike = proxied == direct || (says_why && direct == "ends");
        assert!(alike, "{what}: {proxied:.400}, and the server says {direct:.400}");
        assert!(!direct.ends_with("hangs"), "{what}");
    }
    neighbour.end("broken messages").await;
    let nobody = async || {
        let state = world.command("SHOW STATE").await;
        if (state["busy"].as_str(), state["clients"].as_str()) == ("0", "0") {
            Ok(())
        } else {
            Err(format!("{state:?}"))
        }
    };
    wait_until("nobody is left", BOUND, nobody).await.unwrap();
}

struct Program {
    child: Child,
    dir: PathBuf,
    port: u16,
}

impl Program {
    /// The proxy as a process of its own, so that what it takes is its own.
    async fn start(dir: &Path, blue: &Cluster, green: &Cluster, extra: &str) -> Self {
        world::config(dir, blue, green, extra);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = dir.join("proxy.toml");
        let text =
            std::fs::read_to_string(&file).unwrap().replace("127.0.0.1:0", &format!("127.0.0.1:{port}"));
        std::fs::write(&file, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_pgteal-proxy"))
            .arg("--config")
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let program = Self { child, dir: dir.to_owned(), port };
        let listens = async || TcpStream::connect(("127.0.0.1", port)).await.map(drop);
        wait_until("the proxy to listen", BOUND, listens).await.unwrap();
        program
    }

    async fn client(&self) -> Client {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Resident memory in KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Until the proxy has let go of all that came meanwhile.
    async fn forgets(&self, before: usize) {
        let fewer = async || match self.files() {
            now if now <= before + 2 => Ok(()),
            now => Err(format!("{now} files are open, {before} were")),
        };
        wait_until("all connections are closed", BOUND, fewer).await.unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connections that stay half open, some saying a byte now and then, until the proxy has had enough of them.
async fn loris(program: &Program, count: usize) {
    let mut all = Vec::new();
    for number in 0..count {
        let mut stream = TcpStream::connect(("127.0.0.1", program.port)).await.unwrap();
        if number % 2 == 0 {
            let _ = stream.write_all(&[0]).await;
        }
        all.push(stream);
    }
    for byte in [0, 1, 0, 0] {
        for stream in all.iter_mut().step_by(2) {
            let _ = stream.write_all(&[byte]).await;
        }
        // They go on as slowly as that.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Connections made and broken off as fast as threads can, some with a beginning of a startup packet.
fn storm(port: u16, time: Duration) -> u64 {
    use std::io::Write;
    let until = Instant::now() + time;
    let mut count = 0;
    while Instant::now() < until {
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { continue };
        if count % 4 == 0 {
            let _ = stream.write_all(&[0, 0, 0, 40, 0, 3]);
        }
        // Reset: the machine's ports would be used up by connections that are over.
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_connections_and_a_storm_of_them_cost_a_bounded_amount() {
    let (blue, green) = servers().await;
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), &blue, &green, "").await;
    let neighbour = Neighbour::begin(program.client().await);
    storm(program.port, Duration::from_millis(200));
    let (idle, files) = (program.memory(), program.files());
    let mut taken = Vec::new();
    for _ in 0..3 {
        loris(&program, 2_000).await;
        taken.push(program.memory());
        program.forgets(files).await;
    }
    println!("half open: {idle} KiB before, {taken:?} KiB with 2,000 of them, three times");
    assert!(taken[0] < idle + 48 * 1024, "{idle} KiB, then {taken:?}");
    assert!(taken[2] < taken[0] + 8 * 1024, "what was taken is not used again: {idle} KiB, then {taken:?}");
    let port = program.port;
    let made = tokio::task::spawn_blocking(move || storm(port, Duration::from_secs(3))).await.unwrap();
    let after = program.memory();
    println!("storm: {} connections a second, {after} KiB after it", made / 3);
    assert!(made > 300, "only {made} connections were made");
    assert!(after < taken[2] + 16 * 1024, "{after} KiB after the storm");
    program.forgets(files).await;
    neighbour.end("half-open connections and a storm").await;
    let late = tokio::time::timeout(SLOWEST, program.client()).await.expect("nobody gets in after the storm");
    assert_eq!(value(&late, "select 'in'").await, "in");
    let console = console(&program.dir.join(".s.PGSQL.6432")).await;
    console.simple_query("SHOW STATE").await.unwrap();
}

/// The process id is no secret, the rest of a key is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_requests_by_guessed_keys_hit_nobody() {
    const GUESSES: i32 = 8_000;
    let world = World::new("").await;
    let (mut victim, greeting) = Raw::connect(&world, ProtocolVersion::V3_0).await;
    let (_, body) = greeting.iter().find(|(tag, _)| *tag == b'K').unwrap();
    let key = parse_backend_key_data(body).unwrap();
    let neighbour = Neighbour::begin(world.client().await);
    victim.send(|out| put_query(out, "select pg_sleep(60), 'was not hit'")).await;
    let busy = async || match world.command("SHOW STATE").await["busy"].as_str() {
        "0" => Err("nothing runs"),
        _ => Ok(()),
    };
    wait_until("the victim's statement runs", BOUND, busy).await.unwrap();
    let port = world.port();
    let guesses: Vec<_> = (0..4)
        .map(|thief| {
            let key = key.clone();
            tokio::spawn(async move {
                for guess in (thief..GUESSES).step_by(4) {
                    // All lengths that a key may have, and those next to the right one.
                    let length = [4, 4, 4, 5, 8, 32, 256][usize::try_from(guess).unwrap() % 7];
                    let mut secret = vec![0; length];
                    secret[..4].copy_from_slice(key.secret());
                    secret[length - 1] ^= u8::try_from(guess % 255 + 1).unwrap();
                    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    stream
                        .write_all(&encode_cancel(&CancelKey::new(key.pid(), &secret).unwrap()))
                        .await
                        .unwrap();
                    // No answer, whether the key fits or not.
                    assert!(matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)));
                }
            })
        })
        .collect();
    let began = Instant::now();
    for guess in guesses {
        guess.await.unwrap();
    }
    println!("{GUESSES} guesses in {:?}", began.elapsed());
    neighbour.end("guessed keys").await;
    assert!(victim.quiet().await && victim.inbox.is_empty(), "the victim was hit");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(&encode_cancel(&key)).await.unwrap();
    let answer = victim.until(b'Z').await;
    let (_, body) = answer.iter().find(|(tag, _)| *tag == b'E').expect("its own key does");
    assert_eq!(Fields::parse(body).unwrap().sqlstate(), "57014");
}

/// One SCRAM exchange; `said` are the messages of an earlier one to be said again. Answers what the client said, and how it ended.
async fn login(port: u16, password: &str, said: Option<&[Vec<u8>; 2]>) -> ([Vec<u8>; 2], String) {
    let startup = StartupMessage::new(ProtocolVersion::V3_0, [("user", "app"), ("database", "postgres")]);
    let mut raw = Raw::open(port, &startup).await;
    let mut scram = ScramClient::with_password(password.as_bytes(), ClientBinding::Unsupported);
    raw.until(b'R').await;
    let first = said.map_or_else(|| scram.first(), |said| said[0].clone());
    raw.send(|out| put_sasl_initial(out, "SCRAM-SHA-256", &first)).await;
    let (_, challenge) = raw.until(b'R').await.pop().unwrap();
    let Authentication::SaslContinue(challenge) = Authentication::parse(&challenge).unwrap() else {
        panic!("no challenge")
    };
    let last = said.map_or_else(|| scram.reply(challenge).unwrap(), |said| said[1].clone());
    raw.send(|out| put_sasl_response(out, &last)).await;
    let end = match raw.next().await.unwrap() {
        (b'E', body) => Fields::parse(&body).unwrap().sqlstate().to_owned(),
        (tag, _) => char::from(tag).to_string(),
    };
    ([first, last], end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_was_overheard_cannot_be_had_again() {
    let hba = ["local all app scram-sha-256", "host all app all scram-sha-256"];
    let start =
        |major, name| hba.iter().fold(Cluster::builder(major).name(name), |all, line| all.hba(line)).start();
    let (blue, green) = tokio::try_join!(start(15, "blue"), start(18, "green")).unwrap();
    blue.sql("create role app login password 'sesame'").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    world::config(dir.path(), &blue, &green, "");
    let file = dir.path().join("proxy.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("method = \"trust\"", "service_user = \"postgres\"")).unwrap();
    let proxy = pgteal_proxy::Proxy::start(pgteal_proxy::Config::load(&file).unwrap()).await.unwrap();
    let port = proxy.addresses()[0].port();
    let (said, end) = login(port, "sesame", None).await;
    assert_eq!(end, "R", "the right password gets in");
    for _ in 0..3 {
        let (_, end) = login(port, "sesame", Some(&said)).await;
        // Its nonce is not the one that was proven: to a server that is a protocol violation, not a wrong password.
        assert_eq!(end, login(blue.port(), "sesame", Some(&said)).await.1, "as the server says");
        assert!(end.starts_with("08P01") || end.starts_with("28"), "{end}");
    }
    assert_eq!(login(port, "Sesame", None).await.1, "28P01");
    assert_eq!(login(port, "sesame", None).await.1, "R");
}
