//! Two real servers and a proxy in front of them, in this process, with a console.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code, unreachable_pub)]

pub mod raw;

use std::collections::BTreeMap;
use std::time::Duration;

use pgteal_proxy::{Config, Proxy};
use pgteal_testkit::Cluster;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

pub struct World {
    pub blue: Cluster,
    pub green: Cluster,
    pub proxy: Option<Proxy>,
    pub console: Client,
    pub dir: tempfile::TempDir,
}

/// One row of a console answer, by column.
pub type Row = BTreeMap<String, String>;

pub async fn servers() -> (Cluster, Cluster) {
    let blue = Cluster::builder(15).name("blue").start();
    let green = Cluster::builder(18).name("green").start();
    tokio::try_join!(blue, green).unwrap()
}

pub fn config(dir: &std::path::Path, blue: &Cluster, green: &Cluster, extra: &str) -> Config {
    config_with_top(dir, blue, green, "", extra)
}

/// `top` are keys that stand before the tables.
pub fn config_with_top(
    dir: &std::path::Path,
    blue: &Cluster,
    green: &Cluster,
    top: &str,
    extra: &str,
) -> Config {
    let text = format!(
        "{top}listen = [\"127.0.0.1:0\"]\nthreads = 2\nunix_dir = \"{dir}\"\nstate_file = \"{dir}/state.json\"\n\
         [blue]\nhost = \"{}\"\nport = {}\n[green]\nhost = \"127.0.0.1\"\nport = {}\nsslmode = \"disable\"\n\
         [auth]\nmethod = \"trust\"\n{extra}",
        blue.socket_dir().display(),
        blue.port(),
        green.port(),
        dir = dir.display(),
    );
    let path = dir.join("proxy.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path).unwrap()
}

impl World {
    /// Both servers get `schema`; `who()` tells the side.
    pub async fn new(schema: &str) -> Self {
        Self::with(schema, "").await
    }

    pub async fn with(schema: &str, extra: &str) -> Self {
        Self::with_top(schema, "", extra).await
    }

    pub async fn with_top(schema: &str, top: &str, extra: &str) -> Self {
        let (blue, green) = servers().await;
        for (cluster, name) in [(&blue, "blue"), (&green, "green")] {
            let who = format!("create function who() returns text language sql as $$select '{name}'$$;");
            cluster.sql(&format!("{who}{schema}")).await.unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let proxy = Proxy::start(config_with_top(dir.path(), &blue, &green, top, extra)).await.unwrap();
        let console = console(proxy.socket().unwrap()).await;
        Self { blue, green, proxy: Some(proxy), console, dir }
    }

    pub fn port(&self) -> u16 {
        self.proxy.as_ref().unwrap().addresses()[0].port()
    }

    pub fn client_config(&self) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port()).user("postgres").dbname("postgres");
        config
    }

    pub async fn client(&self) -> Client {
        let (client, connection) = self.client_config().connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// One command, one row.
    pub async fn command(&self, text: &str) -> Row {
        self.rows(text).await.into_iter().next().unwrap_or_else(|| panic!("{text}: no row"))
    }

    pub async fn rows(&self, text: &str) -> Vec<Row> {
        let messages =
            self.console.simple_query(text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
        messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(
                    row.columns()
                        .iter()
                        .enumerate()
                        .map(|(n, column)| (column.name().to_owned(), row.get(n).unwrap_or("").to_owned()))
                        .collect(),
                ),
                _ => None,
            })
            .collect()
    }

    /// A command that must be refused: SQLSTATE and message.
    pub async fn refused(&self, text: &str) -> (String, String) {
        let error = self.console.simple_query(text).await.expect_err(text);
        let db = error.as_db_error().unwrap_or_else(|| panic!("{text}: {error:?}"));
        (db.code().code().to_owned(), db.message().to_owned())
    }

    /// The whole switch, as a driver makes it. Answers the row of REPOINT.
    pub async fn switch(&self, to: &str, epoch: u64) -> Row {
        let warm = self.command(&format!("WARM {to} EPOCH {epoch} LIMIT 20000")).await;
        assert_eq!(warm["failed"], "0", "{warm:?}");
        self.command(&format!("HOLD EPOCH {epoch} LIMIT 20000 RUN 'test'")).await;
        let drained = self.command(&format!("DRAIN EPOCH {epoch} BUDGET 10000")).await;
        assert_eq!(drained["busy"], "0", "{drained:?}");
        let settled = self.command(&format!("SETTLE EPOCH {epoch} LIMIT 5000")).await;
        assert_eq!((settled["stale"].as_str(), settled["failed"].as_str()), ("0", "0"), "{settled:?}");
        let repointed = self.command(&format!("REPOINT {to} EPOCH {epoch}")).await;
        self.command(&format!("RELEASE EPOCH {epoch}")).await;
        repointed
    }
}

pub async fn console(socket: &std::path::Path) -> Client {
    let mut config = tokio_postgres::Config::new();
    config.host_path(socket.parent().unwrap()).port(6432).user("pgteal").dbname("pgteal");
    config.connect_timeout(Duration::from_secs(5));
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The only value of a simple query.
pub async fn value(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    messages
        .iter()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
        .unwrap_or_default()
}
