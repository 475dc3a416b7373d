//! A driver's play: a program, or a part of this one, that speaks in lines.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, Command};

use crate::arena::Arena;
use crate::servers::PASSWORD;

/// Longer than any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Play {
    lines: Lines<BufReader<Box<dyn AsyncRead + Send + Unpin>>>,
    input: Box<dyn AsyncWrite + Send + Unpin>,
    _child: Option<Child>,
}

/// Where `cargo xtask drivers` puts the drivers; it fetches what is missing here.
fn driver(path: &str) -> PathBuf {
    let path = pgteal_testkit::drivers().join(path);
    assert!(path.exists(), "{} is missing: run `cargo xtask drivers --fetch`", path.display());
    path
}

impl Play {
    pub(crate) fn python(script: &str, arena: &Arena) -> Self {
        let mut command = Command::new("python3");
        command.arg("-u").arg(here(script)).env("PYTHONPATH", driver("python"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        Self::program(command, arena)
    }

    pub(crate) fn node(script: &str, arena: &Arena) -> Self {
        let mut command = Command::new("node");
        command.arg(here(script)).env("NODE_PATH", driver("node/node_modules"));
        Self::program(command, arena)
    }

    pub(crate) fn java(file: &str, arena: &Arena) -> Self {
        let jar = Path::new("/usr/share/java/postgresql.jar");
        assert!(jar.exists(), "{} is missing: run `cargo xtask drivers --fetch`", jar.display());
        let mut command = Command::new("java");
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]).arg(jar).arg(here(file));
        Self::program(command, arena)
    }

    fn program(mut command: Command, arena: &Arena) -> Self {
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C.UTF-8").env("PROXY_PORT", arena.port().to_string());
        command.env("PROXY_CA", arena.certs.file("ca.crt")).env("PROXY_PASSWORD", PASSWORD);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (output, input) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        Self { _child: Some(child), ..Self::new(output, input) }
    }

    pub(crate) fn new(
        output: impl AsyncRead + Send + Unpin + 'static,
        input: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let output: Box<dyn AsyncRead + Send + Unpin> = Box::new(output);
        Self { lines: BufReader::new(output).lines(), input: Box::new(input), _child: None }
    }

    pub(crate) async fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        self.input.flush().await.unwrap();
    }

    async fn line(&mut self, wanted: &str) -> String {
        let line = tokio::time::timeout(LIMIT, self.lines.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("waited {LIMIT:?} for the play to say {wanted}"));
        line.unwrap().unwrap_or_else(|| panic!("the play ended before it said {wanted}"))
    }

    pub(crate) async fn expect(&mut self, wanted: &str) {
        let line = self.line(wanted).await;
        assert_eq!(line, wanted);
    }

    /// What became of each case.
    pub(crate) async fn verdicts(&mut self) -> BTreeMap<String, String> {
        let mut verdicts = BTreeMap::new();
        loop {
            let line = self.line("done").await;
            if line == "done" {
                return verdicts;
            }
            let (name, verdict) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
            verdicts.insert(name.to_owned(), verdict.to_owned());
        }
    }
}

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers").join(file)
}
