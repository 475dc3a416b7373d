//! A real server per major release, started at first use and gone with the test process, however that ends.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use pgteal_postgres::{ConnInfo, Purpose, Server, Session, role};

pub(crate) const ROLE: &str = "pgteal";
const ALL: [u32; 5] = [14, 15, 16, 17, 18];

pub(crate) struct Cluster {
    pub(crate) major: u32,
    pub(crate) port: u16,
    dir: PathBuf,
    // Its end of the pipe keeps the watchdog waiting; when this process ends, the server does.
    _watchdog: Mutex<Child>,
}

/// The releases to test; all five where `PGTEAL_REQUIRE_ALL_PG` asks for it.
pub(crate) fn majors() -> Vec<u32> {
    let found: Vec<u32> = ALL.into_iter().filter(|m| distribution(*m).is_some()).collect();
    assert!(!found.is_empty(), "no PostgreSQL server binaries found");
    if std::env::var_os("PGTEAL_REQUIRE_ALL_PG").is_some() {
        assert_eq!(found, ALL, "a server version is missing");
    }
    found
}

/// An older and a newer release, as far apart as can be.
pub(crate) fn pairs() -> Vec<(u32, u32)> {
    let all = majors();
    let newest = *all.last().unwrap();
    all.into_iter().filter(|m| *m < newest || newest == 15).map(|m| (m, newest)).collect()
}

fn distribution(major: u32) -> Option<PathBuf> {
    let cache = std::env::var("XDG_CACHE_HOME")
        .or_else(|_| std::env::var("HOME").map(|h| format!("{h}/.cache")))
        .unwrap_or_default();
    let roots = [
        std::env::var("PGTEAL_PG_DIR").unwrap_or_default(),
        "/var/cache/pgteal/pg".to_owned(),
        format!("{cache}/pgteal/pg"),
        "/usr/lib/postgresql".to_owned(),
    ];
    roots.iter().map(|r| Path::new(r).join(major.to_string())).find(|d| d.join("bin/postgres").exists())
}

pub(crate) fn cluster(major: u32) -> &'static Cluster {
    static RUNNING: [OnceLock<Cluster>; 5] = [const { OnceLock::new() }; 5];
    let place = ALL.iter().position(|m| *m == major).unwrap();
    RUNNING[place].get_or_init(|| Cluster::start(major))
}

fn unprivileged(program: PathBuf, lib: &Path) -> Command {
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    let mut command = if root {
        let mut c = Command::new("setpriv");
        c.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program);
        c
    } else {
        Command::new(program)
    };
    command.env("LD_LIBRARY_PATH", lib).env("LC_ALL", "C.UTF-8").current_dir("/");
    command
}

impl Cluster {
    fn start(major: u32) -> Cluster {
        let dist = distribution(major).unwrap();
        let (bin, lib) = (dist.join("bin"), dist.join("lib"));
        let dir = tempfile::Builder::new().prefix("pgteal-pg-").tempdir().unwrap().keep();
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let data = dir.join("data");
        let out = unprivileged(bin.join("initdb"), &lib)
            .args(["-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(out.status.success(), "initdb {major}: {}", String::from_utf8_lossy(&out.stderr));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\n\
             wal_level = logical\nmax_replication_slots = 40\nmax_wal_senders = 40\nmax_worker_processes = 40\n\
             max_logical_replication_workers = 20\nwal_retrieve_retry_interval = 100ms\n\
             max_prepared_transactions = 5\nmax_connections = 150\nshared_buffers = 64MB\n",
            dir.display()
        );
        // Only where one test looks at what it keeps.
        let statements = "shared_preload_libraries = 'pg_stat_statements'\n";
        let settings = settings + if major == ALL[ALL.len() - 1] { statements } else { "" };
        let conf = data.join("postgresql.conf");
        let old = std::fs::read_to_string(&conf).unwrap();
        std::fs::write(&conf, old + &settings).unwrap();
        let log = dir.join("log");
        let mut server = unprivileged(bin.join("postgres"), &lib);
        server.arg("-D").arg(&data);
        let words: Vec<_> = std::iter::once(server.get_program()).chain(server.get_args()).collect();
        // The shell outlives this process by the moment it takes to stop the server and remove its files.
        let script = r#"trap '' INT TERM HUP; log=$1; dir=$2; shift 2; "$@" >"$log" 2>&1 </dev/null & pid=$!
            read _; kill -QUIT $pid; wait $pid; rm -rf "$dir""#;
        let watchdog = Command::new("sh")
            .arg("-c")
            .arg(script)
            .arg("sh")
            .arg(&log)
            .arg(&dir)
            .args(words)
            .env("LD_LIBRARY_PATH", &lib)
            .env("LC_ALL", "C.UTF-8")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let cluster = Cluster { major, port, dir, _watchdog: Mutex::new(watchdog) };
        cluster.wait_ready(&log);
        cluster
    }

    #[allow(clippy::disallowed_methods)] // runs while no other task of the test does
    fn wait_ready(&self, log: &Path) {
        let start = Instant::now();
        let ready = || std::fs::read_to_string(log).is_ok_and(|t| t.contains("ready to accept connections"));
        while !ready() {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "server {} did not start in 30 s: {text}",
                self.major
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn conninfo(&self, user: &str) -> ConnInfo {
        ConnInfo::at("127.0.0.1", self.port, user)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap()
    }

    /// The server as our role sees it; the role is made at first use.
    pub(crate) async fn server(&self) -> Server {
        let admin = Server::new(format!("pg{}", self.major), self.conninfo("postgres")).unwrap();
        let mut s =
            admin.connect("postgres", Purpose::long("setup").within(Duration::from_secs(30))).await.unwrap();
        // Tests run at the same time; the role is made once.
        let tx = s.begin("setup").await.unwrap();
        tx.batch("setup", "SELECT pg_advisory_xact_lock(1)").await.unwrap();
        role::ensure_tool_role(&tx, ROLE, None).await.unwrap();
        tx.commit("setup").await.unwrap();
        Server::new(format!("pg{}", self.major), self.conninfo(ROLE)).unwrap()
    }

    /// An empty database of its own for a test, and our session in it.
    pub(crate) async fn database(&self, name: &str) -> (Server, Session) {
        let server = self.server().await;
        let s =
            server.connect("postgres", Purpose::long("setup").within(Duration::from_secs(30))).await.unwrap();
        s.batch("setup", &format!("CREATE DATABASE {name} TEMPLATE template0")).await.unwrap();
        let s = server.connect(name, Purpose::control("test")).await.unwrap();
        (server, s)
    }

    /// A client of the application: an ordinary driver session, as superuser `postgres`, who gets past most fences.
    pub(crate) async fn client(&self, database: &str) -> tokio_postgres::Client {
        let text = format!(
            "host=127.0.0.1 port={} user=postgres dbname={database} application_name=app \
             options='-c statement_timeout=20s'",
            self.port
        );
        let (client, connection) = tokio_postgres::connect(&text, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

/// The SQLSTATE of a failed client call.
pub(crate) fn state<T>(result: Result<T, tokio_postgres::Error>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(e) => e.code().map_or_else(|| e.to_string(), |c| c.code().to_owned()),
    }
}
