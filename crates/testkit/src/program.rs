//! Programs under test as child processes, each in a directory of its own. Owns their life, their output and the
//! finding of the product's binaries. Refuses to know what the programs do.

mod binary;

pub use binary::{BinaryError, binary};

use crate::scratch::Scratch;
use crate::wait::{WaitError, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// What went wrong with a program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The product's binary is not there.
    #[error(transparent)]
    Binary(#[from] BinaryError),
    /// It could not be started, signalled or waited for.
    #[error("{what} of {program}: {source}")]
    Io {
        /// Its file.
        program: PathBuf,
        /// What was done.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// It did not end in time.
    #[error("{program}: {source}; its standard error ends with:\n{stderr}")]
    Wait {
        /// Its file.
        program: PathBuf,
        /// The condition, its bound and its last status.
        source: WaitError,
        /// The end of its standard error.
        stderr: String,
    },
}

/// A program to be run: its file, arguments, environment and directory.
#[derive(Debug, Clone)]
pub struct ProgramBuilder {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    scratch: Option<Arc<Scratch>>,
}

/// How a program ended and what it wrote.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit status.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

/// A child process with its own working directory; dropping it kills it and, with the last program of a directory,
/// every process that works in there and the directory itself. The same happens when the test process dies.
#[derive(Debug)]
pub struct Program {
    file: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
    stdout: PathBuf,
    stderr: PathBuf,
    scratch: Arc<Scratch>,
}

impl ProgramBuilder {
    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// One variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Work in a directory that other programs work in too, or have worked in: `pgteal` beside its journal.
    #[must_use]
    pub fn dir(mut self, scratch: &Arc<Scratch>) -> Self {
        self.scratch = Some(Arc::clone(scratch));
        self
    }

    /// Starts it. Standard input is empty; standard output and error go to files, so that it never waits for us.
    ///
    /// # Errors
    /// [`ProgramError::Io`].
    pub fn spawn(self) -> Result<Program, ProgramError> {
        let file = self.program.clone();
        self.start().map_err(|source| ProgramError::Io { program: file, what: "start", source })
    }

    /// Starts it and waits for its end.
    ///
    /// # Errors
    /// As [`Self::spawn`] and [`Program::wait`].
    pub async fn run(self, bound: Duration) -> Result<Output, ProgramError> {
        self.spawn()?.output(bound).await
    }

    fn start(self) -> io::Result<Program> {
        let scratch = match self.scratch {
            Some(scratch) => scratch,
            None => Arc::new(Scratch::new()?),
        };
        let name = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = unused_number(scratch.path(), &name);
        let stdout = scratch.path().join(format!("{name}-{number}.out"));
        let stderr = scratch.path().join(format!("{name}-{number}.err"));
        let mut command = Command::new(&self.program);
        command.args(&self.args).current_dir(scratch.path()).process_group(0);
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_foreign(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        command.envs(self.env);
        command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
        let child = command.spawn()?;
        Ok(Program { file: self.program, child, ended: None, stdout, stderr, scratch })
    }
}

impl Program {
    /// A program by its file.
    #[must_use]
    pub fn file(program: impl Into<PathBuf>) -> ProgramBuilder {
        ProgramBuilder { program: program.into(), args: Vec::new(), env: Vec::new(), scratch: None }
    }

    /// A binary of the product, `pgteal` or `pgteal-proxy`; built first if nobody has.
    ///
    /// # Errors
    /// [`ProgramError::Binary`].
    pub fn product(name: &str) -> Result<ProgramBuilder, ProgramError> {
        Ok(Self::file(binary(name)?))
    }

    /// The directory it works in, to put files there or to start another program beside it.
    #[must_use]
    pub fn dir(&self) -> &Arc<Scratch> {
        &self.scratch
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.poll(), Ok(None))
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`ProgramError::Wait`] when it still runs after `bound`.
    pub async fn wait(&mut self, bound: Duration) -> Result<ExitStatus, ProgramError> {
        let mut failed = None;
        let ended = wait_until("the program to end", bound, async || match self.poll() {
            Ok(Some(status)) => Ok(Some(status)),
            Ok(None) => Err("it still runs"),
            Err(error) => {
                failed = Some(error);
                Ok(None)
            }
        });
        match ended.await {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(self.io("wait", failed.unwrap_or_else(|| io::Error::other("no status")))),
            Err(source) => {
                let all = self.stderr();
                let from = all.char_indices().rev().nth(2_000).map_or(0, |(at, _)| at);
                Err(ProgramError::Wait { program: self.file.clone(), source, stderr: all[from..].to_owned() })
            }
        }
    }

    /// Waits for its end and returns all that it wrote.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn output(mut self, bound: Duration) -> Result<Output, ProgramError> {
        let status = self.wait(bound).await?;
        Ok(Output { status, stdout: self.stdout(), stderr: self.stderr() })
    }

    /// Kills it with SIGKILL and reaps it. The processes it has started live on, as after any real kill -9.
    ///
    /// # Errors
    /// [`ProgramError::Io`].
    pub fn kill9(&mut self) -> Result<(), ProgramError> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        let status = killed.map_err(|error| self.io("kill -9", error))?;
        self.ended.get_or_insert(status);
        Ok(())
    }

    /// SIGTERM: asks it to end.
    ///
    /// # Errors
    /// [`ProgramError::Io`].
    pub fn terminate(&mut self) -> Result<(), ProgramError> {
        self.signal(Signal::TERM)
    }

    /// SIGINT: ctrl-C.
    ///
    /// # Errors
    /// [`ProgramError::Io`].
    pub fn interrupt(&mut self) -> Result<(), ProgramError> {
        self.signal(Signal::INT)
    }

    /// SIGSTOP: it stands still, its sockets stay open.
    ///
    /// # Errors
    /// [`ProgramError::Io`].
    pub fn freeze(&mut self) -> Result<(), ProgramError> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: it goes on.
    ///
    /// # Errors
    /// [`ProgramError::Io`].
    pub fn thaw(&mut self) -> Result<(), ProgramError> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> Result<(), ProgramError> {
        // Looked at first: the number of a reaped process may belong to somebody else by now.
        let running = self.poll().map_err(|error| self.io("signal", error))?.is_none();
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).filter(|_| running);
        let ended = || io::Error::other("it has ended");
        let sent = pid.ok_or_else(ended).and_then(|pid| Ok(kill_process(pid, signal)?));
        sent.map_err(|error| self.io("signal", error))
    }

    fn poll(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    fn io(&self, what: &'static str, source: io::Error) -> ProgramError {
        ProgramError::Io { program: self.file.clone(), what, source }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Variables that would make a program under test depend on who runs the test.
fn is_foreign(name: &str) -> bool {
    let ours = ["PGTEAL_PG_DIR", "PGTEAL_REQUIRE_ALL_PG"];
    (name.starts_with("PG") && !ours.contains(&name)) || name == "RUST_LOG" || name == "RUST_BACKTRACE"
}

fn unused_number(dir: &Path, name: &str) -> usize {
    (1..).find(|number| !dir.join(format!("{name}-{number}.out")).exists()).unwrap_or_default()
}

fn text(file: &Path) -> String {
    fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
