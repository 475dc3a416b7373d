//! Two primaries with replicas, and a proxy that knows all of them.

use std::time::Duration;

use pgteal_proxy::{Config, Proxy};
use pgteal_testkit::{Cluster, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_postgres::{Client, Error, NoTls};

use crate::world::{Row, World, console, servers, value};

/// Checks come every 100 ms; the rest is for a busy machine.
const BOUND: Duration = Duration::from_secs(30);

pub struct Fleet {
    pub world: World,
    pub blue: Vec<Cluster>,
    pub green: Vec<Cluster>,
}

impl Fleet {
    /// So many replicas on each side, all fit.
    pub async fn new(blue: usize, green: usize, reads: &str) -> Self {
        let fleet = Self::with(blue, green, reads, |blue, green| (ports(blue), ports(green))).await;
        for replica in fleet.blue.iter().chain(&fleet.green) {
            fleet.until(replica, "fit").await;
        }
        fleet
    }

    /// `listed` says which replicas the proxy believes each side to have.
    pub async fn with(
        blue: usize,
        green: usize,
        reads: &str,
        listed: impl FnOnce(&[Cluster], &[Cluster]) -> (Vec<u16>, Vec<u16>),
    ) -> Self {
        let (primary, successor) = servers().await;
        for (cluster, name) in [(&primary, "blue"), (&successor, "green")] {
            let who = format!("create function who() returns text language sql as $$select '{name}'$$;");
            cluster.sql(&format!("{who} create table t (id int)")).await.unwrap();
        }
        let (blue, green) = tokio::join!(replicas(&primary, blue), replicas(&successor, green));
        let dir = tempfile::tempdir().unwrap();
        let (blue_ports, green_ports) = listed(&blue, &green);
        let text = format!(
            "listen = [\"127.0.0.1:0\"]\nmetrics = \"127.0.0.1:0\"\nthreads = 2\nunix_dir = \"{dir}\"\nstate_file = \"{dir}/state.json\"\n\
             [blue]\nhost = \"127.0.0.1\"\nport = {}\nreplicas = {}\n[green]\nhost = \"127.0.0.1\"\nport = {}\nreplicas = {}\n\
             [auth]\nmethod = \"trust\"\nservice_user = \"postgres\"\n\
             [reads]\nlisten = [\"127.0.0.1:0\"]\ncheck_interval_ms = 100\n{reads}",
            primary.port(),
            addresses(&blue_ports),
            successor.port(),
            addresses(&green_ports),
            dir = dir.path().display(),
        );
        let path = dir.path().join("proxy.toml");
        std::fs::write(&path, text).unwrap();
        let proxy = Proxy::start(Config::load(&path).unwrap()).await.unwrap();
        let console = console(proxy.socket().unwrap()).await;
        let world = World { blue: primary, green: successor, proxy: Some(proxy), console, dir };
        Self { world, blue, green }
    }

    /// The proxy ends, and another one begins in its place.
    pub async fn start_again(&mut self) {
        self.world.proxy.take().unwrap().shutdown().await;
        let path = self.world.dir.path().join("proxy.toml");
        let proxy = Proxy::start(Config::load(&path).unwrap()).await.unwrap();
        self.world.console = console(proxy.socket().unwrap()).await;
        self.world.proxy = Some(proxy);
    }

    /// How a reader connects.
    pub fn reads(&self) -> tokio_postgres::Config {
        let port = self.world.proxy.as_ref().unwrap().read_addresses()[0].port();
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port).user("postgres").dbname("postgres");
        config
    }

    pub async fn reader(&self) -> Client {
        connect(&self.reads()).await.unwrap()
    }

    /// What `SHOW ROUTES` says of a server.
    pub async fn shown(&self, server: &Cluster) -> Row {
        let port = server.port().to_string();
        let rows = self.world.rows("SHOW ROUTES").await;
        rows.into_iter().find(|row| row["port"] == port).unwrap()
    }

    /// The number that the metrics give for a replica.
    pub async fn metric(&self, name: &str, replica: &Cluster) -> Option<f64> {
        let address = self.world.proxy.as_ref().unwrap().metrics().unwrap();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        let start = format!("pgteal_proxy_{name}{{side=\"blue\",server=\"127.0.0.1:{}\"}} ", replica.port());
        page.lines().find_map(|line| line.strip_prefix(&start)).map(|number| number.parse().unwrap())
    }

    /// Waits until the proxy thinks so of a replica.
    pub async fn until(&self, replica: &Cluster, health: &str) {
        let condition = format!("a replica to be {health}");
        let shown = async || {
            let row = self.shown(replica).await;
            if row["health"].starts_with(health) { Ok(()) } else { Err(format!("{row:?}")) }
        };
        wait_until(&condition, BOUND, shown).await.unwrap();
    }

    /// Waits until so many sessions are on a server.
    pub async fn until_sessions(&self, server: &Cluster, count: usize) {
        let shown = async || {
            let row = self.shown(server).await;
            if row["sessions"] == count.to_string() { Ok(()) } else { Err(format!("{row:?}")) }
        };
        wait_until(&format!("{count} sessions"), BOUND, shown).await.unwrap();
    }
}

async fn replicas(primary: &Cluster, count: usize) -> Vec<Cluster> {
    let mut all = Vec::new();
    for number in 0..count {
        all.push(primary.replica(&format!("{}-replica-{number}", primary.name())).await.unwrap());
    }
    all
}

pub fn ports(clusters: &[Cluster]) -> Vec<u16> {
    clusters.iter().map(Cluster::port).collect()
}

fn addresses(ports: &[u16]) -> String {
    let all: Vec<_> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    format!("[{}]", all.join(", "))
}

pub async fn connect(config: &tokio_postgres::Config) -> Result<Client, Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The server that a client is on, by its port.
pub async fn port_of(client: &Client) -> u16 {
    value(client, "select inet_server_port()").await.parse().unwrap()
}

/// SQLSTATE and message of what the server or the proxy said.
pub fn said(error: &Error) -> (String, String) {
    let db = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    (db.code().code().to_owned(), db.message().to_owned())
}
