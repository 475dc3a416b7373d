//! The one place that gives advice: every failure becomes what happened, which object, what it means for the data, the
//! next command, and an exit code. All other modules state facts.

use pgteal_core::postgres::ConnInfoError;
use pgteal_saga::{DriverError, JournalError};
use serde::Serialize;

use crate::config::ConfigError;
use crate::exit::Exit;
use crate::ui::{Style, Ui};

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A connection string is wrong.
    #[error("`{key}`: {error}")]
    ConnInfo {
        /// The configuration's key.
        key: &'static str,
        /// What is wrong.
        error: ConnInfoError,
    },
    /// A file that would be overwritten.
    #[error("{} exists", path.display())]
    Exists {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A file of ours cannot be read or written.
    #[error("cannot {verb} {}: {reason}", path.display())]
    File {
        /// `write`, `make`, `run`.
        verb: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The system's message.
        reason: String,
    },
    /// The operating system refused something else.
    #[error("cannot {doing}: {reason}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// The system's message.
        reason: String,
    },
    /// The journal did not take or give a record.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The engine could not drive the run.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// An argument that clap cannot judge.
    #[error("{argument}: {reason}")]
    Argument {
        /// The argument.
        argument: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No server distribution of this version.
    #[error("no PostgreSQL {major} server programs on this machine")]
    NoDistribution {
        /// Major version.
        major: u32,
        /// Where we looked.
        looked: Vec<std::path::PathBuf>,
    },
    /// A program of ours is missing.
    #[error("{program} is neither beside pgteal nor in PATH")]
    NoProgram {
        /// The program.
        program: String,
    },
}

/// A failure as users see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// Stable name of the kind of failure.
    pub code: &'static str,
    /// What happened.
    pub what: String,
    /// The object concerned.
    pub object: Option<String>,
    /// What it means for the data.
    pub data: String,
    /// The next command or deed.
    pub next: String,
    /// The exit code.
    #[serde(skip)]
    pub exit: Exit,
}

const UNTOUCHED: &str = "nothing was changed";

impl Failure {
    /// The advice for this failure.
    #[must_use]
    pub fn advice(&self) -> Advice {
        let what = self.to_string();
        let advice = |code, exit, object: Option<String>, data: &str, next: String| Advice {
            code,
            what: what.clone(),
            object,
            data: data.into(),
            next,
            exit,
        };
        let show = |path: &std::path::Path| Some(path.display().to_string());
        match self {
            Self::Config(error) => config(error, what),
            Self::ConnInfo { key, .. } => advice(
                "conninfo",
                Exit::Usage,
                Some((*key).to_owned()),
                UNTOUCHED,
                "correct it: a URI (postgresql://role@host:port/db) or `key=value` pairs as libpq takes them"
                    .into(),
            ),
            Self::Exists { path } => advice(
                "exists",
                Exit::Usage,
                show(path),
                "the file was left as it is",
                format!(
                    "edit it, or write another one: pgteal --config other.toml init ...; or move {} away",
                    path.display()
                ),
            ),
            Self::File { path, .. } => advice(
                "file",
                Exit::Internal,
                show(path),
                UNTOUCHED,
                "check that the directory exists, is writable and has room, then run the command again"
                    .into(),
            ),
            Self::System { doing, .. } => advice(
                "system",
                Exit::Internal,
                Some((*doing).to_owned()),
                UNTOUCHED,
                "run the command again with -v, and report it if it stays".into(),
            ),
            Self::Journal(error) => journal(error, what),
            Self::Driver(error) => driver(error, what),
            Self::Argument { argument, .. } => advice(
                "argument",
                Exit::Usage,
                Some(argument.clone()),
                UNTOUCHED,
                "run the command with --help to see what it takes".into(),
            ),
            Self::NoDistribution { major, looked } => advice(
                "no-distribution",
                Exit::Usage,
                Some(format!("PostgreSQL {major}")),
                UNTOUCHED,
                format!(
                    "install PostgreSQL {major}, or name its directory in PGTEAL_PG_DIR; looked in {}",
                    looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
                ),
            ),
            Self::NoProgram { program } => advice(
                "no-program",
                Exit::Usage,
                Some(program.clone()),
                UNTOUCHED,
                format!("put {program} into the directory of pgteal or into PATH"),
            ),
        }
    }

    /// Shows the failure and answers the exit code.
    pub fn report(&self, ui: &Ui) -> Exit {
        let advice = self.advice();
        ui.object(&serde_json::json!({ "error": advice }));
        if !ui.json() {
            ui.note(format!("{} {}", ui.paint(Style::Bad, "error:"), advice.what));
            if let Some(object) = &advice.object {
                ui.note(format!("  object: {object}"));
            }
            ui.note(format!("  data:   {}", advice.data));
            ui.note(format!("  next:   {}", advice.next));
        }
        advice.exit
    }
}

const RESUMABLE: &str = "the journal says how far the run came; both clusters are as that says";

fn journal(error: &JournalError, what: String) -> Advice {
    use JournalError as E;
    let (code, exit, object, data, next) = match error {
        E::Conflict { run, .. } => (
            "superseded",
            Exit::Superseded,
            format!("run {run}"),
            RESUMABLE,
            "another pgteal drives this run; watch it with: pgteal status --watch",
        ),
        E::StaleEpoch { deployment, .. } => (
            "stale-epoch",
            Exit::Superseded,
            format!("deployment {deployment}"),
            "this controller was turned away and changed nothing more",
            "another pgteal has taken over; watch it with: pgteal status --watch",
        ),
        E::Locked { place, .. } => (
            "journal-locked",
            Exit::Superseded,
            place.clone(),
            UNTOUCHED,
            "another pgteal works with this journal; wait for it or stop it, then run the command again",
        ),
        E::UnknownRun { run, .. } => {
            ("unknown-run", Exit::Usage, format!("run {run}"), UNTOUCHED, "list the runs with: pgteal runs")
        }
        E::Missing { place } => (
            "no-journal",
            Exit::Usage,
            place.clone(),
            UNTOUCHED,
            "there was no run yet; begin with: pgteal plan",
        ),
        E::NotAJournal { place, .. } => (
            "not-a-journal",
            Exit::Usage,
            place.clone(),
            UNTOUCHED,
            "move the file away, or name another deployment.state_dir",
        ),
        E::TooNew { place, .. } => (
            "journal-too-new",
            Exit::Usage,
            place.clone(),
            UNTOUCHED,
            "use the pgteal that wrote it, or a newer one",
        ),
        E::Corrupt { place, .. } => (
            "journal-corrupt",
            Exit::Internal,
            place.clone(),
            "nothing was changed now; what earlier runs changed is still there",
            "restore the file from a copy, or look for our objects with: pgteal status",
        ),
        E::Full { place } => (
            "journal-full",
            Exit::Internal,
            place.clone(),
            RESUMABLE,
            "make room on that disk, then: pgteal resume",
        ),
        E::ReadOnly { place, .. } => (
            "journal-read-only",
            Exit::Internal,
            place.clone(),
            RESUMABLE,
            "make the directory writable for the user that runs pgteal, then run the command again",
        ),
        E::Unfit { .. } => (
            "sqlite-unfit",
            Exit::Internal,
            "SQLite".into(),
            UNTOUCHED,
            "build pgteal with its committed Cargo.lock",
        ),
        E::Io { place, .. } => {
            ("journal-io", Exit::Internal, place.clone(), RESUMABLE, "look at that disk, then: pgteal resume")
        }
        E::Malformed { run, .. } => (
            "defect",
            Exit::Internal,
            format!("run {run}"),
            RESUMABLE,
            "this is a defect of pgteal; report it with the output of: pgteal runs --json",
        ),
    };
    Advice { code, what, object: Some(object), data: data.into(), next: next.into(), exit }
}

fn driver(error: &DriverError, what: String) -> Advice {
    use DriverError as E;
    let (code, exit, object, data, next) = match error {
        E::Journal(error) => return journal(error, what),
        E::JournalLost { left, .. } => (
            "journal-lost",
            if left.is_empty() { Exit::Unwound } else { Exit::Stuck },
            "journal".to_owned(),
            "clients were released to the side they were on; no commit was lost",
            "look at the journal's disk, then: pgteal resume",
        ),
        E::Plan { run, .. } => (
            "plan-unknown",
            Exit::Usage,
            format!("run {run}"),
            "nothing was changed now; the run stands where the journal says",
            "drive it with the version of pgteal that planned it",
        ),
        E::Illegal { run, .. } => (
            "journal-illegal",
            Exit::Internal,
            format!("run {run}"),
            "nothing was changed now; the run stands where its last good event says",
            "restore the journal from a copy, and report it with the output of: pgteal runs --json",
        ),
        E::OtherLease { run, .. } => (
            "defect",
            Exit::Internal,
            format!("run {run}"),
            UNTOUCHED,
            "this is a defect of pgteal; report it with the output of: pgteal runs --json",
        ),
        E::NotUndoable { run, .. } => (
            "not-undoable",
            Exit::Usage,
            format!("run {run}"),
            UNTOUCHED,
            "see what may be done with: pgteal status; after a switchover the way back is: pgteal back",
        ),
        E::NotAtGate { run, .. } => (
            "not-at-gate",
            Exit::Usage,
            format!("run {run}"),
            UNTOUCHED,
            "see where it stands with: pgteal status",
        ),
        E::Died { step, .. } => {
            ("died", Exit::Internal, format!("step {step}"), RESUMABLE, "go on with: pgteal resume")
        }
    };
    Advice { code, what, object: Some(object), data: data.into(), next: next.into(), exit }
}

fn config(error: &ConfigError, what: String) -> Advice {
    let (code, object, next) = match error {
        ConfigError::Missing { path } => (
            "config-missing",
            path.display().to_string(),
            "write one: pgteal init --blue 'postgresql://pgteal@db1/postgres'; or name it with --config FILE"
                .to_owned(),
        ),
        ConfigError::Unreadable { path, .. } => (
            "config-unreadable",
            path.display().to_string(),
            "make the file readable for the user that runs pgteal".to_owned(),
        ),
        ConfigError::Syntax { path, line, .. } => (
            "config-syntax",
            format!("{}:{line}", path.display()),
            "correct the line; pgteal config schema prints every key with its type".to_owned(),
        ),
        ConfigError::UnknownKey { path, line, .. } => (
            "config-unknown-key",
            format!("{}:{line}", path.display()),
            "correct or remove the key; pgteal config schema prints all that are known".to_owned(),
        ),
        ConfigError::MissingKey { path, key, table } => (
            "config-missing-key",
            path.display().to_string(),
            format!("add `{key} = ...` to {table}; pgteal config schema says what it takes"),
        ),
        ConfigError::Value { key, .. } => (
            "config-value",
            key.clone(),
            "correct the value; pgteal config schema prints the bounds".to_owned(),
        ),
        ConfigError::PasswordInline { key, env, .. } => (
            "config-password",
            key.clone(),
            format!("take the password out and give it by {env}, by password_file, or by .pgpass"),
        ),
        ConfigError::PasswordFile { path, .. } => (
            "password-file",
            path.display().to_string(),
            "put the password into its first line, then: chmod 600 FILE".to_owned(),
        ),
    };
    Advice { code, what, object: Some(object), data: UNTOUCHED.into(), next, exit: Exit::Usage }
}
