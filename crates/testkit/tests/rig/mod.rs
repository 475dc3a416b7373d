//! A whole deployment in one test: real blue and green, the proxy in this process, the ledger workload through it, and
//! the runbooks driven over a journal in memory. Shared by the tests whose names begin with `runbook_`.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

pub mod moments;

use std::sync::Arc;
use std::time::Duration;

pub use moments::Moments;
use pgteal_core::carry::Dump;
use pgteal_core::deployment::{DatabaseKey, Direction, Side};
use pgteal_core::progress::silent;
use pgteal_core::providers::{Existing, Programs, Provider};
use pgteal_core::router::Router;
use pgteal_core::world::{Cluster as WorldCluster, Settings, World};
use pgteal_core::{compare, retire, switchover, upgrade};
use pgteal_ledger::{Oracle, Record, Verdict, Workload, WorkloadConfig};
use pgteal_postgres::{ConnInfo, Password, Server};
use pgteal_proxy::Proxy;
use pgteal_routers::proxy::ProxyRouter;
use pgteal_saga::driver::Outcome;
use pgteal_saga::{DeploymentId, Event, Journal, MemoryJournal, Plan, Registry};
use pgteal_testkit::{Cluster, ClusterBuilder, Link, PortLease, Scratch};

/// One deployment.
pub struct Rig {
    pub blue: Arc<Cluster>,
    pub green: Arc<Cluster>,
    /// Between green's workers and blue, and the other way round.
    pub links: Arc<(Link, Link)>,
    pub proxy: Option<Proxy>,
    pub port: PortLease,
    pub id: DeploymentId,
    pub journal: Arc<MemoryJournal>,
    pub settings: Settings,
    pub databases: Vec<DatabaseKey>,
    scratch: Arc<Scratch>,
}

/// The tool's and the application's roles, and the application's databases.
const ROLES: &str =
    "CREATE ROLE pgteal SUPERUSER LOGIN PASSWORD 'blue'; CREATE ROLE app LOGIN PASSWORD 'app'";

impl Rig {
    /// Two clusters of these majors, a shop of `rows` rows and a billing database on blue, the proxy in front.
    pub async fn new(from: u16, to: u16, rows: u64) -> Self {
        Self::of(Cluster::builder(from), Cluster::builder(to), rows).await
    }

    /// [`Rig::new`] with clusters of one's own.
    pub async fn of(blue: ClusterBuilder, green: ClusterBuilder, rows: u64) -> Self {
        let prepared = |builder: ClusterBuilder, name: &str| {
            builder
                .name(name)
                .set("wal_retrieve_retry_interval", "100ms")
                .hba("host all app 127.0.0.1/32 scram-sha-256")
        };
        let (blue, green) = tokio::join!(prepared(blue, "blue").start(), prepared(green, "green").start());
        let (blue, green) = (Arc::new(blue.unwrap()), Arc::new(green.unwrap()));
        blue.sql(ROLES).await.unwrap();
        green.sql("CREATE ROLE pgteal SUPERUSER LOGIN PASSWORD 'green'").await.unwrap();
        for name in ["shop", "billing"] {
            blue.sql(&format!("CREATE DATABASE {name} OWNER app")).await.unwrap();
        }
        pgteal_ledger::create_shop(&owner(&blue, "shop").await, rows).await.unwrap();
        pgteal_ledger::create_billing(&owner(&blue, "billing").await, rows.min(1000)).await.unwrap();
        let links = (Link::to_port(blue.port()).await.unwrap(), Link::to_port(green.port()).await.unwrap());
        let links = Arc::new(links);
        let databases = ["billing", "postgres", "shop"].into_iter().enumerate();
        let mut rig = Self {
            blue,
            green,
            links,
            proxy: None,
            port: PortLease::take().unwrap(),
            id: DeploymentId::generate(),
            journal: Arc::new(MemoryJournal::new()),
            settings: Settings { trial_bound: Duration::from_secs(1), ..Settings::default() },
            databases: databases
                .map(|(n, name)| DatabaseKey { ordinal: u32::try_from(n).unwrap(), name: name.into() })
                .collect(),
            scratch: Arc::new(Scratch::new().unwrap()),
        };
        rig.start_proxy().await;
        rig
    }

    /// [`Rig::new`] with a blue that has no database `postgres`.
    pub async fn without_postgres(from: u16, to: u16, rows: u64) -> Self {
        let mut rig = Self::new(from, to, rows).await;
        rig.databases.retain(|database| database.name != "postgres");
        rig.blue.sql_in("shop", "DROP DATABASE postgres WITH (FORCE)").await.unwrap();
        rig
    }

    /// Starts the proxy, or another one after the first was dropped; it finds its route in the state file.
    pub async fn start_proxy(&mut self) {
        self.proxy = Some(Proxy::start(self.proxy_config()).await.unwrap());
    }

    pub fn proxy_config(&self) -> pgteal_proxy::Config {
        let dir = self.scratch.path().display().to_string();
        let text = format!(
            "listen = ['127.0.0.1:{port}']\nunix_dir = '{dir}'\nunix_port = {port}\nstate_file = '{dir}/route'\n\
             [auth]\nservice_database = 'shop'\n[blue]\nhost = '127.0.0.1'\nport = {blue}\n[green]\nhost = '127.0.0.1'\nport = {green}\n",
            port = self.port.port(),
            blue = self.blue.port(),
            green = self.green.port(),
        );
        toml::from_str(&text).unwrap()
    }

    fn info(&self, cluster: &Cluster) -> ConnInfo {
        let home = if std::ptr::eq(cluster, &*self.blue) { "shop" } else { "postgres" };
        ConnInfo::at("127.0.0.1", cluster.port(), "pgteal").with_database(home)
    }

    fn through(link: &Link) -> ConnInfo {
        ConnInfo::at("127.0.0.1", link.port(), "pgteal").with_database("postgres")
    }

    pub fn provider(&self) -> Existing {
        let programs = Programs::client_only(self.green.distribution().bin()).unwrap();
        Existing::new(self.info(&self.green), Self::through(&self.links.1), self.id.clone(), programs)
            .unwrap()
    }

    /// The proxy's console, as a run drives it.
    pub fn router(&self) -> Arc<dyn Router> {
        let socket = self.scratch.path().display().to_string();
        let way = ConnInfo::at(socket, self.port.port(), "root");
        Arc::new(ProxyRouter::new("proxy", way.clone(), way, "test").unwrap())
    }

    /// What the steps act on; made anew for each run, as each command of the product does.
    pub fn world(&self) -> World {
        let provider: Arc<dyn Provider> = Arc::new(self.provider());
        let dump = Dump::new(provider.programs().clone(), self.scratch.path().join("dump"));
        let cluster = |side: Side, cluster: &Cluster, link: &Link| WorldCluster {
            side,
            server: {
                let login = self.info(cluster).with_password(Password::new(side.as_str()));
                Server::new(side.as_str(), login).unwrap()
            },
            replication: Self::through(link),
        };
        World::new(
            self.id.clone(),
            self.databases.clone(),
            (
                cluster(Side::Blue, &self.blue, &self.links.0),
                cluster(Side::Green, &self.green, &self.links.1),
            ),
            vec![self.router()],
            (provider, dump),
            self.settings.clone(),
        )
    }

    /// Drives a plan from its beginning to where it rests.
    pub async fn drive(&self, registry: Registry<World>, plan: Plan) -> (Outcome, Vec<Event>) {
        let (run, ended) = self.drive_through(registry, plan, Moments::new()).await;
        let outcome = ended.unwrap();
        if outcome != Outcome::Done {
            self.tell(&run).await;
        }
        (outcome, self.journal.load(&run).await.unwrap())
    }

    pub async fn up(&self) -> Outcome {
        let registry = upgrade::runbook().unwrap();
        let plan = upgrade::plan(&registry, &self.id, &self.databases).unwrap();
        self.drive(registry, plan).await.0
    }

    pub async fn switchover(&self, direction: Direction) -> (Outcome, Vec<Event>) {
        let registry = switchover::runbook(direction).unwrap();
        let plan = switchover::plan(&registry, &self.id, &self.databases, &self.settings).unwrap();
        self.drive(registry, plan).await
    }

    pub async fn finish(&self, active: Side) -> Outcome {
        let registry = retire::runbook(active).unwrap();
        let plan = retire::plan(&registry, &self.id, &self.databases, active).unwrap();
        self.drive(registry, plan).await.0
    }

    /// Clients through the proxy.
    pub async fn workload(&self, rate: f64) -> Workload {
        self.workload_from(rate, 0).await
    }

    /// A further workload, whose sessions begin with the number `first`.
    pub async fn workload_from(&self, rate: f64, first: u32) -> Workload {
        Self::clients(self.port.port(), rate, first).await
    }

    /// Clients that go to blue itself, past the proxy; their sessions have numbers of their own.
    pub async fn direct_workload(&self, rate: f64) -> Workload {
        Self::clients(self.blue.port(), rate, 100).await
    }

    async fn clients(port: u16, rate: f64, first: u32) -> Workload {
        let to = |db| format!("host=127.0.0.1 port={port} user=app password=app dbname={db}");
        let mut config = WorkloadConfig::new(&to("shop")).unwrap().with_billing(&to("billing"), 2).unwrap();
        config.sessions = 8;
        config.first_session = first;
        config.rate = Some(rate);
        config.transaction_limit = Duration::from_secs(20);
        Workload::start(config).await.unwrap()
    }

    /// What the oracle says of a record, looking at the servers of one side itself.
    pub async fn judge(&self, record: &Record, side: Side) -> Verdict {
        let cluster = match side {
            Side::Blue => &self.blue,
            Side::Green => &self.green,
        };
        let (shop, billing) =
            (cluster.connect("shop").await.unwrap(), cluster.connect("billing").await.unwrap());
        Oracle::new(record).check(&shop, Some(&billing)).await.unwrap()
    }

    /// Tables that differ between the two sides, when nobody writes and the stream has come to its end.
    pub async fn mismatched(&self, direction: Direction) -> Vec<String> {
        let report = compare::live(&self.world(), direction, &silent).await.unwrap();
        report.mismatched().map(|t| format!("{}.{}", t.database, t.table)).collect()
    }
}

async fn owner(cluster: &Cluster, db: &str) -> tokio_postgres::Client {
    let mut config = cluster.config(db);
    let (client, connection) =
        config.user("app").password("app").connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
