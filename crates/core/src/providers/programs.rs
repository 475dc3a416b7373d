//! Owns running the programs of one PostgreSQL distribution: where they are, which libraries they need, as whom they
//! run. Refuses to know what they are run for. Secrets go by the environment, never by arguments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, ChildStdout, Command};

use super::{ProviderError, Result};

/// The operating system's user that owns a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsUser {
    /// The name.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The number of its primary group.
    pub gid: u32,
}

impl OsUser {
    /// Looks a user up in `/etc/passwd`.
    pub fn find(name: &str) -> Result<Self> {
        let path = Path::new("/etc/passwd");
        let text = std::fs::read_to_string(path).map_err(super::file("reading", path))?;
        let found = text.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == name).then_some(())?;
            let uid = fields.nth(1)?.parse().ok()?;
            Some(Self { name: name.to_owned(), uid, gid: fields.next()?.parse().ok()? })
        });
        found.ok_or_else(|| ProviderError::Configuration(format!("there is no operating system user {name}")))
    }

    /// The user that this process runs as.
    pub fn of_process() -> Result<Self> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        });
        let name =
            name.ok_or_else(|| ProviderError::Configuration(format!("user number {uid} has no name")))?;
        Ok(Self { name, uid, gid })
    }
}

/// The programs of one distribution.
#[derive(Debug, Clone)]
pub struct Programs {
    bindir: PathBuf,
    /// `LD_LIBRARY_PATH` for distributions that bring their own libpq; without it their programs and the server's
    /// modules may load an older one of the system.
    libdir: Option<PathBuf>,
    run_as: Option<OsUser>,
}

/// How much of a program's output is kept: its end.
const OUTPUT_KEPT: usize = 16 << 10;

impl Programs {
    /// The programs in `bindir`; server programs run as `os_user`. A process of root must name one, or gets `postgres`
    /// if there is such a user, else `nobody`: PostgreSQL refuses to run as root.
    pub fn new(bindir: impl Into<PathBuf>, os_user: Option<&str>) -> Result<Self> {
        let mut programs = Self::client_only(bindir)?;
        programs.require(&["postgres", "initdb", "pg_ctl"])?;
        let me = OsUser::of_process()?;
        programs.run_as = match os_user {
            Some(name) if name == me.name => None,
            Some(name) if me.uid == 0 => Some(OsUser::find(name)?),
            Some(name) => {
                let why = format!("only root can run a server as {name}; this process runs as {}", me.name);
                return Err(ProviderError::Configuration(why));
            }
            None if me.uid == 0 => Some(OsUser::find("postgres").or_else(|_| OsUser::find("nobody"))?),
            None => None,
        };
        Ok(programs)
    }

    /// Only `pg_dump` and `pg_restore` are needed, for a server that somebody else runs.
    pub fn client_only(bindir: impl Into<PathBuf>) -> Result<Self> {
        let bindir = bindir.into();
        let beside = bindir.parent().map(|p| p.join("lib"));
        let libdir = beside.filter(|lib| lib.join("libpq.so.5").exists());
        let programs = Self { bindir, libdir, run_as: None };
        programs.require(&["pg_dump", "pg_restore"])?;
        Ok(programs)
    }

    fn require(&self, names: &[&str]) -> Result<()> {
        match names.iter().find(|name| !self.bindir.join(name).is_file()) {
            None => Ok(()),
            Some(name) => {
                Err(ProviderError::Configuration(format!("{} has no program {name}", self.bindir.display())))
            }
        }
    }

    /// Where the programs are.
    pub fn bindir(&self) -> &Path {
        &self.bindir
    }

    /// The user that server programs and their files belong to.
    pub fn owner(&self) -> Result<OsUser> {
        self.run_as.clone().map_or_else(OsUser::of_process, Ok)
    }

    /// A client program such as `pg_dump`, with nothing of our environment that could lead it to another server.
    pub fn client(&self, program: &str) -> Command {
        self.dress(Command::new(self.bindir.join(program)))
    }

    /// A server program such as `initdb` or `pg_ctl`, as the server's owner.
    pub fn server(&self, program: &str) -> Command {
        let path = self.bindir.join(program);
        let Some(user) = &self.run_as else { return self.dress(Command::new(path)) };
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={}", user.uid))
            .arg(format!("--regid={}", user.gid))
            .arg("--clear-groups");
        command.arg("--").arg(path);
        self.dress(command)
    }

    fn dress(&self, mut command: Command) -> Command {
        for variable in pgteal_postgres::ConnInfo::TOOL_VARIABLES {
            command.env_remove(variable);
        }
        for variable in pgteal_postgres::password_variables() {
            command.env_remove(variable);
        }
        command.env("LC_ALL", "C").current_dir("/").stdin(Stdio::null()).kill_on_drop(true);
        if let Some(libdir) = &self.libdir {
            command.env("LD_LIBRARY_PATH", libdir);
        }
        command
    }

    /// The version of the distribution, by asking its `postgres`.
    pub async fn version(&self) -> Result<pgteal_postgres::Version> {
        let mut command = self.client("postgres");
        command.arg("--version");
        let said = run("postgres --version", command, Duration::from_secs(10)).await?;
        let number = said.split_whitespace().nth(2).and_then(pgteal_postgres::Version::from_text);
        number
            .ok_or_else(|| ProviderError::Configuration(format!("postgres --version said `{}`", said.trim())))
    }

    /// A directory of the distribution, by asking its `pg_config`, e.g. `--pkglibdir`; none if there is no `pg_config`.
    pub async fn directory(&self, which: &str) -> Option<PathBuf> {
        let mut command = self.client("pg_config");
        command.arg(which);
        let said = run("pg_config", command, Duration::from_secs(10)).await.ok()?;
        Some(PathBuf::from(said.trim()))
    }

    /// Extensions that this distribution can create, with their default versions, from their control files.
    pub async fn extensions(&self) -> Option<BTreeMap<String, String>> {
        let directory = self.directory("--sharedir").await?.join("extension");
        let entries = std::fs::read_dir(directory).ok()?;
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?.strip_suffix(".control")?.to_owned();
            let text = std::fs::read_to_string(&path).ok()?;
            let version =
                text.lines().find_map(|l| l.trim().strip_prefix("default_version")?.split('\'').nth(1));
            Some((name, version.unwrap_or_default().to_owned()))
        };
        Some(entries.filter_map(read).collect())
    }
}

/// Runs a program to its end within `limit` and returns what it wrote to standard output. `name` is for errors and has
/// no arguments in it.
pub(crate) async fn run(name: &str, mut command: Command, limit: Duration) -> Result<String> {
    let failed =
        |status: String, output: String| ProviderError::Program { program: name.to_owned(), status, output };
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed("could not be run".to_owned(), e.to_string()))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let whole = async {
        let ((out, err), status) = futures::join!(drain(out, err), child.wait());
        (out, err, status)
    };
    let Ok((out, err, status)) = tokio::time::timeout(limit, whole).await else {
        return Err(failed(format!("no end within {} s", limit.as_secs()), String::new()));
    };
    match status {
        Ok(status) if status.success() => Ok(out),
        Ok(status) => Err(failed(status.to_string(), tail(if err.trim().is_empty() { &out } else { &err }))),
        Err(e) => Err(failed("lost".to_owned(), e.to_string())),
    }
}

async fn drain(out: Option<ChildStdout>, err: Option<ChildStderr>) -> (String, String) {
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let read_out = async {
        if let Some(mut out) = out {
            _ = out.read_to_end(&mut said).await;
        }
    };
    let read_err = async {
        if let Some(mut err) = err {
            _ = err.read_to_end(&mut complained).await;
        }
    };
    futures::join!(read_out, read_err);
    (String::from_utf8_lossy(&said).into_owned(), String::from_utf8_lossy(&complained).into_owned())
}

/// The last lines of an output.
pub(crate) fn tail(text: &str) -> String {
    let from = text.len().saturating_sub(OUTPUT_KEPT);
    let from = (from..=text.len()).find(|&i| text.is_char_boundary(i)).unwrap_or(text.len());
    let lines: Vec<&str> = text[from..].trim().lines().collect();
    lines[lines.len().saturating_sub(12)..].join("; ")
}
