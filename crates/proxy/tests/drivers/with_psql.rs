//! libpq, spoken by PostgreSQL 18's psql: a script for each case, in the style of PostgreSQL's own regression tests. A script
//! stops at each line that begins with `-- next`; what it printed must be what its `.out` file says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pgteal_testkit::Distribution;
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines,
};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::task::JoinHandle;

use crate::arena::Arena;
use crate::play::Play;
use crate::servers::PASSWORD;
use crate::{At, CASES};

/// A line on standard error that says how far the script has come.
const HERE: &str = "here";
const NEXT: &str = "-- next";

/// A script under way.
struct Script {
    at: At,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: JoinHandle<String>,
    stderr: Lines<BufReader<ChildStderr>>,
    /// What psql complained of.
    complaints: String,
    parts: std::vec::IntoIter<String>,
    /// Whether it can say that it has come to the end of its part.
    heard: bool,
    expected: PathBuf,
}

fn start(name: &str, at: At, port: u16, ca: &Path, go: &Path) -> Script {
    let psql = Distribution::find(18).unwrap();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/psql");
    let text = std::fs::read_to_string(dir.join(name).with_extension("sql")).unwrap();
    let mut command = Command::new(psql.bin().join("psql"));
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(variable);
    }
    if let Some(lib) = psql.lib() {
        command.env("LD_LIBRARY_PATH", lib);
    }
    if name == "tls_and_channel_binding" {
        command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", ca).env("PGCHANNELBINDING", "require");
    } else {
        command.env("PGSSLMODE", "disable");
    }
    command.env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string()).env("PGUSER", "scram_user");
    command.env("PGDATABASE", "postgres").env("PGPASSWORD", PASSWORD).env("PGAPPNAME", name);
    command.env("LC_ALL", "C.UTF-8").env("GO", go).args(["-X", "-a", "-q"]).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let stdout = tokio::spawn(async move {
        let mut text = String::new();
        stdout.read_to_string(&mut text).await.unwrap();
        text
    });
    Script {
        at,
        stdin: child.stdin.take(),
        stdout,
        stderr: BufReader::new(child.stderr.take().unwrap()).lines(),
        complaints: String::new(),
        parts: parts(&text).into_iter(),
        heard: true,
        child,
        expected: dir.join(name).with_extension("out"),
    }
}

/// Each with the line that it stops at.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for line in text.split_inclusive('\n') {
        let last = parts.last_mut().unwrap();
        last.push_str(line);
        if line.starts_with(NEXT) {
            parts.push(String::new());
        }
    }
    parts
}

impl Script {
    /// Gives psql its next part; behind the last one there is nothing more.
    async fn give(&mut self) {
        let Some(part) = self.parts.next() else { return };
        let mut stdin = self.stdin.take().unwrap();
        self.heard = !part.contains(", unheard");
        // What stands in COPY data must not be there.
        let part = part.replace("-- next, unheard\n", "");
        // A script that has failed is seen by what it printed.
        let _ = stdin.write_all(part.as_bytes()).await;
        if self.parts.len() > 0 {
            if self.heard {
                let _ = stdin.write_all(format!("\\warn {HERE}\n").as_bytes()).await;
            }
            let _ = stdin.flush().await;
            self.stdin = Some(stdin);
        }
    }

    /// Until it has come to the end of its part.
    async fn arrive(&mut self) {
        while self.heard
            && let Some(line) = self.stderr.next_line().await.unwrap()
            && line != HERE
        {
            self.complaints += &format!("{line}\n");
        }
    }

    async fn verdict(mut self) -> String {
        self.heard = true;
        self.arrive().await;
        let status = self.child.wait().await.unwrap();
        let printed = format!("{}{}", self.stdout.await.unwrap(), self.complaints);
        let got = without_numbers(&printed.replace(&format!("\\warn {HERE}\n"), ""));
        let want = std::fs::read_to_string(&self.expected).unwrap_or_default();
        if got == want {
            return "ok".to_owned();
        }
        let kept = std::env::temp_dir().join(self.expected.file_name().unwrap());
        let _ = std::fs::write(&kept, &got);
        let differ = got.lines().zip(want.lines()).find(|(got, want)| got != want);
        format!("{status}; {differ:?}; all of it is in {}", kept.display())
    }
}

/// Process numbers are never the same.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split("with PID ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts
        .fold(first, |text, part| text + "with PID N" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

pub(crate) fn play(arena: &Arena) -> Play {
    let (output, theirs) = tokio::io::duplex(1 << 16);
    let (input, ours) = tokio::io::duplex(1 << 16);
    let (port, ca) = (arena.port(), arena.certs.file("ca.crt"));
    tokio::spawn(async move { perform(port, &ca, theirs, BufReader::new(ours).lines()).await });
    Play::new(output, input)
}

async fn perform(port: u16, ca: &Path, mut output: DuplexStream, mut input: Lines<BufReader<DuplexStream>>) {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    assert!(Command::new("mkfifo").arg(&go).status().await.unwrap().success());
    let mut scripts = BTreeMap::new();
    for (name, at) in CASES {
        let mut script = start(name, at, port, ca, &go);
        script.give().await;
        script.arrive().await;
        scripts.insert(name, script);
    }
    output.write_all(b"ready\n").await.unwrap();
    assert_eq!(input.next_line().await.unwrap().as_deref(), Some("held"));
    for (name, script) in &mut scripts {
        if script.at != At::Inside && *name != "with_listen" {
            script.give().await;
        }
    }
    assert_eq!(input.next_line().await.unwrap().as_deref(), Some("finish"));
    tokio::fs::write(&go, "go\n").await.unwrap();
    for script in scripts.values_mut().filter(|script| script.at == At::Inside) {
        script.give().await;
        script.arrive().await;
        script.give().await;
    }
    output.write_all(b"finished\n").await.unwrap();
    // psql looks for notifications when it has an answer.
    assert_eq!(input.next_line().await.unwrap().as_deref(), Some("released"));
    scripts.get_mut("with_listen").unwrap().give().await;
    for (name, script) in scripts {
        let verdict = script.verdict().await;
        output.write_all(format!("{name}: {verdict}\n").as_bytes()).await.unwrap();
    }
    output.write_all(b"done\n").await.unwrap();
}
