//! How a cluster is asked for. Owns the kit's defaults. Refuses to know running servers.

use super::{Cluster, ClusterError};
use crate::distribution::Distribution;
use crate::port::PortLease;
use crate::scratch::Scratch;
use crate::{template, unprivileged};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Mutex;

/// What every cluster of the kit has unless the test sets it. Nothing survives a power cut here, and nothing has to:
/// tests kill processes, not machines, and the page cache outlives processes. `mmap` keeps dynamic shared memory
/// inside the data directory, where it is removed with it.
const DEFAULTS: [(&str, &str); 12] = [
    ("fsync", "off"),
    ("shared_buffers", "32MB"),
    ("dynamic_shared_memory_type", "mmap"),
    ("wal_level", "logical"),
    ("max_connections", "200"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("max_worker_processes", "24"),
    ("max_logical_replication_workers", "12"),
    ("max_prepared_transactions", "10"),
    ("log_line_prefix", "%m [%p] %q%a "),
    ("unix_socket_permissions", "0777"),
];

/// A cluster to be: UTF8, locale C.UTF-8, superuser `postgres`, trust, logical WAL, `fsync` off.
#[derive(Debug, Clone)]
pub struct ClusterBuilder {
    major: u16,
    debian: bool,
    on_disk: bool,
    name: String,
    locale: String,
    encoding: String,
    initdb: Vec<String>,
    checksums: Option<bool>,
    settings: Vec<(String, String)>,
    hba: Vec<String>,
}

impl ClusterBuilder {
    pub(super) fn new(major: u16) -> Self {
        Self {
            major,
            debian: false,
            on_disk: false,
            name: format!("pg{major}"),
            locale: "C.UTF-8".into(),
            encoding: "UTF8".into(),
            initdb: Vec::new(),
            checksums: None,
            settings: Vec::new(),
            hba: Vec::new(),
        }
    }

    /// Use Debian's own build of this major, never the fetched one.
    #[must_use]
    pub fn debian(mut self) -> Self {
        self.debian = true;
        self
    }

    /// Keep the data directory on a real disk and sync to it, for what measures.
    #[must_use]
    pub fn on_disk(mut self) -> Self {
        self.on_disk = true;
        self.set("fsync", "on")
    }

    /// For messages and the log file; `pg<major>` if not given.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// `initdb --locale`.
    #[must_use]
    pub fn locale(mut self, locale: &str) -> Self {
        locale.clone_into(&mut self.locale);
        self
    }

    /// `initdb --encoding`.
    #[must_use]
    pub fn encoding(mut self, encoding: &str) -> Self {
        encoding.clone_into(&mut self.encoding);
        self
    }

    /// Data checksums on or off; the version's own default (on since 18) if not given.
    #[must_use]
    pub fn checksums(mut self, on: bool) -> Self {
        self.checksums = Some(on);
        self
    }

    /// One more argument for `initdb`, for example `--wal-segsize=4`.
    #[must_use]
    pub fn initdb_arg(mut self, arg: &str) -> Self {
        self.initdb.push(arg.to_owned());
        self
    }

    /// One line of `postgresql.conf`; the last word on a setting counts.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// One line of `pg_hba.conf`, before initdb's own lines (which trust everybody).
    #[must_use]
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// Makes the cluster and starts it.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn start(self) -> Result<Cluster, ClusterError> {
        let cluster = self.create().await?;
        cluster.start().await?;
        Ok(cluster)
    }

    /// Makes the cluster, not started.
    ///
    /// # Errors
    /// [`ClusterError`].
    pub async fn create(self) -> Result<Cluster, ClusterError> {
        let name = self.name.clone();
        let failed = |source| ClusterError::Io { cluster: name, what: "creation", source };
        // Copying and initdb would stall the test's other tasks.
        match tokio::task::spawn_blocking(move || self.make()).await {
            Ok(result) => result,
            Err(error) => Err(failed(io::Error::other(error))),
        }
    }

    fn make(self) -> Result<Cluster, ClusterError> {
        let distribution =
            if self.debian { Distribution::debian(self.major)? } else { Distribution::find(self.major)? };
        let failed = |source| ClusterError::Io { cluster: self.name.clone(), what: "creation", source };
        let scratch = if self.on_disk { Scratch::on_disk() } else { Scratch::new() }.map_err(failed)?;
        let port = PortLease::take().map_err(failed)?;
        let data = scratch.path().join("data");
        unprivileged::give(scratch.path()).map_err(failed)?;
        template::copy(&distribution, &self.initdb_args(&distribution), &data).map_err(failed)?;
        self.configure(&data, port.port(), scratch.path()).map_err(failed)?;
        Ok(Cluster { name: self.name, distribution, port, data, postmaster: Mutex::new(None), scratch })
    }

    fn initdb_args(&self, distribution: &Distribution) -> Vec<String> {
        let mut args = vec!["--no-sync".to_owned(), "--username=postgres".into(), "--auth=trust".into()];
        args.push(format!("--encoding={}", self.encoding));
        args.push(format!("--locale={}", self.locale));
        match self.checksums {
            Some(true) => args.push("--data-checksums".into()),
            // Before 18 there is no such option, and none is the default.
            Some(false) if distribution.major() >= 18 => args.push("--no-data-checksums".into()),
            Some(false) | None => {}
        }
        args.extend(self.initdb.iter().cloned());
        args
    }

    fn configure(&self, data: &Path, port: u16, sockets: &Path) -> io::Result<()> {
        let mut lines = String::new();
        let own = [("port", port.to_string()), ("unix_socket_directories", sockets.display().to_string())];
        let own = own.iter().map(|(name, value)| (*name, value.as_str()));
        let listen = std::iter::once(("listen_addresses", "127.0.0.1"));
        let asked = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in DEFAULTS.into_iter().chain(listen).chain(asked).chain(own) {
            let _ = writeln!(lines, "{name} = '{}'", value.replace('\'', "''"));
        }
        OpenOptions::new().append(true).open(data.join("postgresql.conf"))?.write_all(lines.as_bytes())?;
        let hba = data.join("pg_hba.conf");
        let initdbs = fs::read_to_string(&hba)?;
        // Written in place: the file keeps its owner.
        fs::write(&hba, format!("{}\n{initdbs}", self.hba.join("\n")))
    }
}
