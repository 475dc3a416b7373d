//! The demo's blue: a server made by initdb with two databases, a role for the clients and one for pgteal.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use pgteal_core::providers::Programs;
use pgteal_ledger::{create_billing, create_shop};
use tokio::process::Command;
use tokio_postgres::{Client, Config, NoTls};

use super::place::Place;
use crate::errors::Failure;

/// initdb, pg_ctl.
const PROGRAM_BOUND: Duration = Duration::from_secs(120);
/// The clients' role.
pub const CLIENT: &str = "shop";
/// The tool's role.
pub const TOOL: &str = "pgteal";

/// The demo's blue.
#[derive(Debug)]
pub struct Blue {
    programs: Programs,
    data_dir: PathBuf,
    log: PathBuf,
    port: u16,
    password: String,
}

impl Blue {
    /// A blue that does not run yet.
    #[must_use]
    pub fn new(place: &Place, programs: Programs, port: u16) -> Self {
        let servers = place.servers();
        Self {
            programs,
            data_dir: servers.join("blue"),
            log: servers.join("blue.log"),
            port,
            // 74 random bits; the demo's servers listen on this machine only and live for minutes.
            password: uuid::Uuid::now_v7().simple().to_string(),
        }
    }

    /// Makes and starts the server, with its roles and empty databases.
    ///
    /// # Errors
    /// A program that fails, or the server's refusal.
    pub async fn start(&self, place: &Place) -> Result<(), Failure> {
        self.initialise(place).await?;
        self.launch().await?;
        let admin = self.client("postgres", "postgres").await?;
        let password = &self.password;
        for sql in [
            format!("CREATE ROLE {TOOL} LOGIN SUPERUSER REPLICATION PASSWORD '{password}'"),
            format!("CREATE ROLE {CLIENT} LOGIN PASSWORD '{password}'"),
            format!("CREATE DATABASE shop OWNER {CLIENT}"),
            format!("CREATE DATABASE billing OWNER {CLIENT}"),
        ] {
            admin.batch_execute(&sql).await.map_err(refused)?;
        }
        Ok(())
    }

    async fn initialise(&self, place: &Place) -> Result<(), Failure> {
        let servers = place.servers();
        let secret = servers.join("initdb.password");
        let failed = |error: std::io::Error| Failure::File {
            verb: "write",
            path: secret.clone(),
            reason: error.to_string(),
        };
        std::fs::write(&secret, format!("{}\n", self.password)).map_err(failed)?;
        let owner = self.programs.owner()?;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&secret, Some(owner.uid), Some(owner.gid)).map_err(failed)?;
        }
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .map_err(failed)?;
        let mut initdb = self.programs.server("initdb");
        initdb.args([
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C",
            "-k",
            "--no-sync",
            "--auth=scram-sha-256",
        ]);
        initdb.arg("--pwfile").arg(&secret).arg("-D").arg(&self.data_dir);
        finish("initdb", initdb).await?;
        std::fs::remove_file(&secret).map_err(failed)?;
        let settings = format!(
            "\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\nwal_level = logical\n\
             max_wal_senders = 20\nmax_replication_slots = 20\nmax_connections = 300\nmax_worker_processes = 32\n\
             max_logical_replication_workers = 16\nmax_sync_workers_per_subscription = 4\nmax_wal_size = '4GB'\n\
             wal_retrieve_retry_interval = '100ms'\n",
            self.port
        );
        let conf = self.data_dir.join("postgresql.conf");
        let append = std::fs::OpenOptions::new().append(true).open(&conf);
        append
            .and_then(|mut file| std::io::Write::write_all(&mut file, settings.as_bytes()))
            .map_err(|error| Failure::File { verb: "write", path: conf, reason: error.to_string() })
    }

    async fn launch(&self) -> Result<(), Failure> {
        let mut start = self.programs.server("pg_ctl");
        start.args(["start", "-s", "-w", "-t", "60"]).arg("-D").arg(&self.data_dir).arg("-l").arg(&self.log);
        finish("pg_ctl start", start).await
    }

    /// Stops the server at once; nothing of it is needed any more.
    pub async fn stop(&self) {
        if !self.data_dir.join("postmaster.pid").exists() {
            return;
        }
        let mut stop = self.programs.server("pg_ctl");
        stop.args(["stop", "-s", "-w", "-t", "30", "-m", "immediate"]).arg("-D").arg(&self.data_dir);
        if let Err(error) = finish("pg_ctl stop", stop).await {
            tracing::warn!(%error, "blue did not stop");
        }
    }

    /// The shop with `rows` orders and a tenth as many invoices in the second database.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn fill(&self, rows: u64) -> Result<(), Failure> {
        let failed = |error: pgteal_ledger::SchemaError| Failure::Demo(error.to_string());
        create_shop(&self.client(CLIENT, "shop").await?, rows).await.map_err(failed)?;
        create_billing(&self.client(CLIENT, "billing").await?, rows / 10 + 1).await.map_err(failed)
    }

    /// A connection straight to blue, past the proxy.
    ///
    /// # Errors
    /// No connection.
    pub async fn client(&self, user: &str, database: &str) -> Result<Client, Failure> {
        connect(self.port, user, &self.password, database).await
    }

    /// The port of blue.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The password of all its roles.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }
}

/// A connection to `port` of this machine.
///
/// # Errors
/// No connection.
pub async fn connect(port: u16, user: &str, password: &str, database: &str) -> Result<Client, Failure> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user(user).password(password).dbname(database);
    config.application_name("pgteal demo").connect_timeout(Duration::from_secs(10));
    let (client, connection) = config.connect(NoTls).await.map_err(refused)?;
    tokio::spawn(connection);
    Ok(client)
}

/// What a server said, in one line.
pub fn refused(error: tokio_postgres::Error) -> Failure {
    let said = error.as_db_error().map(|db| format!("{} (SQLSTATE {})", db.message(), db.code().code()));
    Failure::Demo(said.unwrap_or_else(|| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }))
}

async fn finish(name: &'static str, mut command: Command) -> Result<(), Failure> {
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let ended = tokio::time::timeout(PROGRAM_BOUND, command.output()).await;
    match ended {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Failure::Demo(format!("{name} failed ({}): {said}", output.status)))
        }
        Ok(Err(error)) => Err(Failure::Demo(format!("{name} could not be run: {error}"))),
        Err(_) => Err(Failure::Demo(format!("{name} took more than {} s", PROGRAM_BOUND.as_secs()))),
    }
}
