//! Owns green as local processes: a data directory made by `initdb` in blue's image, run by `pg_ctl`. Refuses to know
//! what is put into it.
//!
//! Ownership is in the world: `<data_dir>.pgteal.json` beside the data directory is written before the first file of it,
//! and names the deployment. Without it, or with another id in it, the directory is somebody else's.

mod hba;
mod image;
mod making;
mod marker;
mod settings;
mod tls;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use pgteal_postgres::{ConnInfo, Password, Server};

use self::marker::{Marker, Stage};
use super::programs::{Programs, run, tail};
use super::{GreenState, Headroom, Prepared, Provider, ProviderError, Result, file};
use crate::checks::GreenFacts;
use crate::deployment::DeploymentId;

/// How green is made and run.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// The programs of green's version.
    pub bindir: PathBuf,
    /// The data directory; must not exist or be empty.
    pub data_dir: PathBuf,
    /// The TCP port and the number in the socket's name.
    pub port: u16,
    /// `listen_addresses`; the first one is where blue reaches green for the reverse stream.
    pub listen: String,
    /// The directory of the Unix socket; made if it does not exist. The socket's path may have 107 bytes.
    pub unix_dir: PathBuf,
    /// The user that runs the server, when we are root.
    pub os_user: Option<String>,
    /// Settings of the operator's own; they win over those carried from blue.
    pub parameters: BTreeMap<String, String>,
    /// The tool's role.
    pub tool_role: String,
    /// Its password, the same as on blue; none where blue lets it in without.
    pub password: Option<Password>,
}

/// Green as local processes.
#[derive(Debug, Clone)]
pub struct Local {
    config: LocalConfig,
    deployment: DeploymentId,
    programs: Programs,
    conninfo: ConnInfo,
    replication: ConnInfo,
}

/// `initdb`, `pg_ctl stop` of an idle server and the like.
const PROGRAM_LIMIT: Duration = Duration::from_secs(120);

impl Local {
    /// Checks the configuration; touches nothing.
    pub fn new(config: LocalConfig, deployment: DeploymentId) -> Result<Self> {
        let programs = Programs::new(&config.bindir, config.os_user.as_deref())?;
        for (what, path) in [("data_dir", &config.data_dir), ("unix_dir", &config.unix_dir)] {
            if !path.is_absolute() || path.parent().is_none() {
                let why = format!("{what} {} must be an absolute path below the root", path.display());
                return Err(ProviderError::Configuration(why));
            }
        }
        let socket = config.unix_dir.join(format!(".s.PGSQL.{}", config.port));
        // sun_path has 108 bytes with its terminator (unix(7)); the server would refuse to start with a longer one.
        if socket.as_os_str().len() > 107 {
            let why = format!("the socket {} would have more than 107 bytes", socket.display());
            return Err(ProviderError::Configuration(why));
        }
        let with_password = |info: ConnInfo| match &config.password {
            Some(password) => info.with_password(password.clone()),
            None => info,
        };
        let at = |host: &str| {
            with_password(ConnInfo::at(host, config.port, &config.tool_role)).with_database("postgres")
        };
        let first = config.listen.split(',').map(str::trim).find(|a| !a.is_empty()).unwrap_or("127.0.0.1");
        let first = if matches!(first, "*" | "0.0.0.0" | "localhost") { "127.0.0.1" } else { first };
        let (conninfo, replication) = (at(&config.unix_dir.to_string_lossy()), at(first));
        Ok(Self { config, deployment, programs, conninfo, replication })
    }

    fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }

    /// The server's own log, inside the data directory.
    pub fn log_path(&self) -> PathBuf {
        self.config.data_dir.join("pgteal-server.log")
    }

    /// Whether a postmaster runs in the data directory, as `pg_ctl status` sees it.
    async fn runs(&self) -> Result<bool> {
        if !self.data_dir().join("postmaster.pid").exists() {
            return Ok(false);
        }
        let mut command = self.programs.server("pg_ctl");
        command.arg("status").arg("-D").arg(self.data_dir());
        match run("pg_ctl status", command, PROGRAM_LIMIT).await {
            Ok(_) => Ok(true),
            // 3: not running; 4: no data directory (PostgreSQL docs, "pg_ctl").
            Err(ProviderError::Program { status, .. })
                if status.ends_with(": 3") || status.ends_with(": 4") =>
            {
                Ok(false)
            }
            Err(other) => Err(other),
        }
    }

    async fn launch(&self, bound: Duration) -> Result<()> {
        let mut command = self.programs.server("pg_ctl");
        let seconds = bound.as_secs().max(1);
        command.args(["start", "-s", "-w", "-t", &seconds.to_string()]);
        command.arg("-D").arg(self.data_dir()).arg("-l").arg(self.log_path());
        let end = run("pg_ctl start", command, bound + Duration::from_secs(10)).await;
        end.map(|_| ()).map_err(|error| match error {
            ProviderError::Program { status, output, .. } => {
                let said = std::fs::read(self.log_path()).map(|b| tail(&String::from_utf8_lossy(&b)));
                let log =
                    said.ok().filter(|s| !s.is_empty()).unwrap_or_else(|| format!("{status}: {output}"));
                ProviderError::NotStarted { data_dir: self.config.data_dir.clone(), log }
            }
            other => other,
        })
    }

    async fn halt(&self, mode: &str, bound: Duration) -> Result<()> {
        if !self.runs().await? {
            return Ok(());
        }
        let mut command = self.programs.server("pg_ctl");
        command.args(["stop", "-s", "-w", "-m", mode, "-t", &bound.as_secs().max(1).to_string()]);
        command.arg("-D").arg(self.data_dir());
        match run("pg_ctl stop", command, bound + Duration::from_secs(10)).await {
            // It may have ended between the two looks.
            Err(_) if !self.runs().await? => Ok(()),
            other => other.map(|_| ()),
        }
    }

    fn marker(&self) -> Result<Option<Marker>> {
        Marker::read(self.data_dir())
    }

    fn foreign(&self, reason: impl Into<String>) -> ProviderError {
        let object = format!("directory {}", self.data_dir().display());
        ProviderError::Foreign { object, reason: reason.into() }
    }
}

#[async_trait]
impl Provider for Local {
    fn kind(&self) -> &'static str {
        "local"
    }

    fn programs(&self) -> &Programs {
        &self.programs
    }

    fn conninfo(&self) -> &ConnInfo {
        &self.conninfo
    }

    fn replication_conninfo(&self) -> &ConnInfo {
        &self.replication
    }

    async fn facts(&self) -> Result<GreenFacts> {
        let place = self.data_dir().ancestors().find(|p| p.is_dir());
        let free =
            place.and_then(|p| rustix::fs::statvfs(p).ok()).map(|s| s.f_bavail.saturating_mul(s.f_frsize));
        Ok(GreenFacts {
            version: Some(self.programs.version().await?),
            extensions: self.programs.extensions().await,
            free_bytes: free,
            must_be_empty: false,
        })
    }

    async fn observe(&self) -> Result<GreenState> {
        let Some(marker) = self.marker()? else {
            return Ok(if making::is_vacant(self.data_dir())? {
                GreenState::Absent
            } else {
                GreenState::Foreign(format!(
                    "{} is not empty and not made by pgteal",
                    self.data_dir().display()
                ))
            });
        };
        if marker.deployment != self.deployment.as_str() {
            let whose = format!("{} belongs to deployment {}", self.data_dir().display(), marker.deployment);
            return Ok(GreenState::Foreign(whose));
        }
        Ok(match marker.stage {
            Stage::Making => GreenState::HalfMade,
            Stage::Ready if self.runs().await? => GreenState::Running,
            Stage::Ready => GreenState::Stopped,
        })
    }

    async fn answers(&self) -> Result<bool> {
        Ok(self.observe().await? == GreenState::Running)
    }

    async fn prepare(&self, blue: &Server, headroom: Headroom) -> Result<Prepared> {
        match self.observe().await? {
            GreenState::Foreign(reason) => return Err(self.foreign(reason)),
            GreenState::Stopped | GreenState::Running => {
                return Ok(self.marker()?.map(|m| m.prepared).unwrap_or_default());
            }
            GreenState::HalfMade => self.remove().await?,
            GreenState::Absent => {}
        }
        making::make(self, blue, headroom).await
    }

    async fn prepared(&self) -> Result<Option<Prepared>> {
        Ok(match self.observe().await? {
            GreenState::Stopped | GreenState::Running => self.marker()?.map(|m| m.prepared),
            _ => None,
        })
    }

    async fn start(&self, bound: Duration) -> Result<()> {
        match self.observe().await? {
            GreenState::Running => Ok(()),
            GreenState::Stopped => self.launch(bound).await,
            GreenState::Foreign(reason) => Err(self.foreign(reason)),
            GreenState::Absent | GreenState::HalfMade => {
                Err(ProviderError::Configuration(format!("{} is not made yet", self.data_dir().display())))
            }
        }
    }

    async fn stop(&self, bound: Duration) -> Result<()> {
        match self.observe().await? {
            GreenState::Running => self.halt("fast", bound).await,
            GreenState::Foreign(reason) => Err(self.foreign(reason)),
            _ => Ok(()),
        }
    }

    async fn remove(&self) -> Result<()> {
        match self.observe().await? {
            GreenState::Absent => return Ok(()),
            GreenState::Foreign(reason) => return Err(self.foreign(reason)),
            _ => {}
        }
        self.halt("immediate", PROGRAM_LIMIT).await?;
        let Some(marker) = self.marker()? else { return Ok(()) };
        if self.data_dir().exists() {
            std::fs::remove_dir_all(self.data_dir()).map_err(file("removing", self.data_dir()))?;
        }
        if marker.made.contains(&self.config.unix_dir) {
            for name in
                [format!(".s.PGSQL.{}", self.config.port), format!(".s.PGSQL.{}.lock", self.config.port)]
            {
                _ = std::fs::remove_file(self.config.unix_dir.join(name));
            }
        }
        Marker::remove(self.data_dir())?;
        for directory in marker.made.iter().rev() {
            // Only if nobody has put anything there since.
            _ = std::fs::remove_dir(directory);
        }
        Ok(())
    }
}
