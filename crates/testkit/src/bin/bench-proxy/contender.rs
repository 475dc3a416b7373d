//! Who stands between clients and server. Owns the seam between the benchmark and its contenders; refuses to measure.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use pgteal_testkit::{PortLease, Program, ProgramBuilder, Scratch, wait_until};
use tokio_postgres::NoTls;

use crate::arena::{ASKED, Arena, DATABASE, TRUSTED};
use crate::{haproxy, pgbouncer, pgteal};

/// How long one may take to let clients in.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// In the order they take turns in the first round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contender {
    /// Nobody: clients connect to the server.
    Direct,
    /// PgBouncer, pool_mode = session.
    PgbouncerSession,
    /// PgBouncer, pool_mode = transaction.
    PgbouncerTransaction,
    /// HAProxy, mode tcp.
    Haproxy,
    /// A loop that only moves bytes.
    NullRelay,
    /// The product.
    PgtealProxy,
}

/// How clients prove who they are.
#[derive(Clone)]
pub(crate) enum Login {
    /// Not at all.
    Trust,
    /// By SCRAM-SHA-256; what the server keeps of the password.
    Scram { secret: String },
}

/// Where a contender leads to.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    pub(crate) port: u16,
    /// The directory of the server's Unix socket when that is the way, else TCP on 127.0.0.1.
    pub(crate) socket_dir: Option<PathBuf>,
}

/// What all contenders of a case have in common.
#[derive(Clone)]
pub(crate) struct Wiring {
    pub(crate) scratch: Arc<Scratch>,
    pub(crate) upstream: Upstream,
    pub(crate) login: Login,
    /// The most sessions at once.
    pub(crate) sessions: usize,
}

/// A contender that lets clients in; ended when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) contender: Contender,
    /// On 127.0.0.1.
    pub(crate) port: u16,
    program: Option<Program>,
    _lease: Option<PortLease>,
}

impl Contender {
    pub(crate) const ALL: [Contender; 6] = [
        Contender::Direct,
        Contender::PgbouncerSession,
        Contender::PgbouncerTransaction,
        Contender::Haproxy,
        Contender::NullRelay,
        Contender::PgtealProxy,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Direct => "direct",
            Contender::PgbouncerSession => "pgbouncer-session",
            Contender::PgbouncerTransaction => "pgbouncer-transaction",
            Contender::Haproxy => "haproxy",
            Contender::NullRelay => "null-relay",
            Contender::PgtealProxy => "pgteal-proxy",
        }
    }

    /// Starts it and waits until a client is in.
    pub(crate) async fn start(self, wiring: &Wiring) -> Result<Running> {
        let Some((program, lease)) = self.spawn(wiring).with_context(|| self.name())? else {
            return Ok(Running { contender: self, port: wiring.upstream.port, program: None, _lease: None });
        };
        let user = wiring.login.user();
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(lease.port()).user(user).dbname(DATABASE);
        config.password(Arena::password(user));
        let ready = wait_until("a client is let in", READY_LIMIT, async || {
            config.connect(NoTls).await.map(drop).map_err(|error| match error.as_db_error() {
                Some(said) => said.message().to_owned(),
                None => error.to_string(),
            })
        });
        ready.await.with_context(|| format!("{}: {}", self.name(), program.stderr()))?;
        Ok(Running { contender: self, port: lease.port(), program: Some(program), _lease: Some(lease) })
    }

    fn spawn(self, wiring: &Wiring) -> Result<Option<(Program, PortLease)>> {
        let lease = PortLease::take()?;
        let port = lease.port();
        let program: ProgramBuilder = match self {
            Contender::Direct => return Ok(None),
            Contender::PgbouncerSession => pgbouncer::program(wiring, port, pgbouncer::Mode::Session)?,
            Contender::PgbouncerTransaction => {
                pgbouncer::program(wiring, port, pgbouncer::Mode::Transaction)?
            }
            Contender::Haproxy => haproxy::program(wiring, port)?,
            Contender::NullRelay => {
                let program = Program::file(std::env::current_exe()?).args(["null-relay", "--listen"]);
                let program = program.arg(port.to_string());
                match wiring.upstream.socket() {
                    Some(socket) => program.arg("--socket").arg(socket),
                    None => program.args(["--port", &wiring.upstream.port.to_string()]),
                }
            }
            Contender::PgtealProxy => pgteal::program(wiring, port)?,
        };
        Ok(Some((program.dir(&wiring.scratch).spawn()?, lease)))
    }

    /// How it is set up, for whoever reads the figures; `None` for who has nothing to set up.
    pub(crate) fn told(self) -> Option<String> {
        match self {
            Contender::Direct => None,
            Contender::PgbouncerSession => Some(pgbouncer::told(pgbouncer::Mode::Session)),
            Contender::PgbouncerTransaction => Some(pgbouncer::told(pgbouncer::Mode::Transaction)),
            Contender::Haproxy => Some(haproxy::told()),
            Contender::NullRelay => {
                Some("one thread, epoll edge triggered, one read and one write a message, no parsing".into())
            }
            Contender::PgtealProxy => Some(pgteal::told()),
        }
    }
}

impl std::fmt::Display for Contender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl Running {
    /// The number of its process; `None` for nobody.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.program.as_ref().map(Program::pid)
    }
}

impl Login {
    pub(crate) fn user(&self) -> &'static str {
        match self {
            Login::Trust => TRUSTED,
            Login::Scram { .. } => ASKED,
        }
    }
}

impl Upstream {
    /// In libpq's words: an address, or the directory of a socket.
    pub(crate) fn host(&self) -> String {
        match &self.socket_dir {
            Some(dir) => dir.display().to_string(),
            None => Ipv4Addr::LOCALHOST.to_string(),
        }
    }

    /// The Unix socket, by the name libpq gives it.
    pub(crate) fn socket(&self) -> Option<PathBuf> {
        self.socket_dir.as_ref().map(|dir| dir.join(format!(".s.PGSQL.{}", self.port)))
    }
}

/// The first line that a program says of its version.
pub(crate) fn version(program: &str, flag: &str) -> Option<String> {
    let output = std::process::Command::new(program).arg(flag).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
}
