//! Two servers in step by logical replication, a proxy between them and clients, both legs with TLS and channel binding.

use std::time::Duration;

use pgteal_proxy::{Config, Proxy};
use pgteal_testkit::{Cluster, wait_until};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::servers::{Certs, PASSWORD, install};
use crate::world::{self, Row};

pub(crate) struct Arena {
    pub(crate) blue: Cluster,
    pub(crate) green: Cluster,
    pub(crate) certs: Certs,
    proxy: Proxy,
    console: Client,
    _dir: tempfile::TempDir,
}

async fn server(major: u16, name: &str, certs: &Certs) -> Cluster {
    let mut builder = Cluster::builder(major).name(name).set("ssl", "on");
    for user in ["pgteal", "scram_user"] {
        builder = builder.hba(&format!("host all {user} all scram-sha-256"));
    }
    let cluster = builder.create().await.unwrap();
    for file in ["server.crt", "server.key"] {
        install(&certs.file(file), cluster.data_dir(), file);
    }
    cluster.start().await.unwrap();
    cluster
        .sql(&format!(
            "create role pgteal superuser login password '{PASSWORD}';
             create role reader;
             create role scram_user login password '{PASSWORD}' in role reader;
             create function who() returns text language sql as $$select '{name}'$$;
             create table said (session text, what text, side text default who(), at timestamptz
                 default clock_timestamp(), primary key (session, what));
             grant all on said to public"
        ))
        .await
        .unwrap();
    cluster
}

impl Arena {
    pub(crate) async fn new() -> Self {
        let certs = Certs::new();
        let (blue, green) = tokio::join!(server(15, "blue", &certs), server(18, "green", &certs));
        let verifiers = "select format('alter role %I password %L;', rolname, rolpassword) from pg_authid where rolpassword is not null";
        green.sql(&blue.sql(verifiers).await.unwrap()).await.unwrap();
        blue.sql("create publication p for table said").await.unwrap();
        let stream =
            format!("create subscription s connection '{}' publication p", blue.conninfo("postgres"));
        green.sql(&stream).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let password = dir.path().join("password");
        std::fs::write(&password, format!("{PASSWORD}\n")).unwrap();
        let side = |name: &str, cluster: &Cluster| {
            format!(
                "[{name}]\nhost = \"127.0.0.1\"\nport = {}\nsslmode = \"verify-full\"\nsslrootcert = {:?}\n",
                cluster.port(),
                certs.file("ca.crt")
            )
        };
        let text = format!(
            "listen = [\"127.0.0.1:0\"]\nunix_dir = {0:?}\nstate_file = {1:?}\nthreads = 2\n{2}{3}\
             [tls]\ncert = {4:?}\nkey = {5:?}\n[auth]\nservice_password_file = {6:?}\n",
            dir.path(),
            dir.path().join("state"),
            side("blue", &blue),
            side("green", &green),
            certs.file("server.crt"),
            certs.file("server.key"),
            password,
        );
        std::fs::write(dir.path().join("proxy.toml"), text).unwrap();
        let proxy = Proxy::start(Config::load(&dir.path().join("proxy.toml")).unwrap()).await.unwrap();
        let console = world::console(proxy.socket().unwrap()).await;
        Self { blue, green, certs, proxy, console, _dir: dir }
    }

    pub(crate) fn port(&self) -> u16 {
        self.proxy.addresses()[0].port()
    }

    /// A command to the console: its rows.
    pub(crate) async fn rows(&self, text: &str) -> Vec<Row> {
        let messages =
            self.console.simple_query(text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.map(|row| {
            let columns = row.columns().iter().enumerate();
            columns.map(|(n, c)| (c.name().to_owned(), row.get(n).unwrap_or("").to_owned())).collect()
        })
        .collect()
    }

    pub(crate) async fn command(&self, text: &str) -> Row {
        self.rows(text).await.into_iter().next().unwrap_or_else(|| panic!("{text}: no row"))
    }

    /// Until so many clients are inside a transaction, or are held.
    pub(crate) async fn until(&self, column: &str, want: usize) {
        let condition = format!("{column} = {want}");
        let looked = wait_until(&condition, Duration::from_secs(20), async || {
            let state = self.command("SHOW STATE").await;
            if state[column] == want.to_string() { Ok(()) } else { Err(format!("{state:?}")) }
        });
        if let Err(error) = looked.await {
            panic!("{error}\n{:#?}", self.rows("SHOW SESSIONS").await);
        }
    }

    /// Until green has everything that blue was told.
    pub(crate) async fn in_step(&self) {
        let count = "select count(*) from said";
        let want = self.blue.sql(count).await.unwrap();
        let looked = wait_until("green to have all rows", Duration::from_secs(20), async || {
            let got = self.green.sql(count).await.unwrap();
            if got == want { Ok(()) } else { Err(format!("{got} of {want}")) }
        });
        looked.await.unwrap();
    }
}
