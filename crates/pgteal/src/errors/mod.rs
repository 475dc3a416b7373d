//! The one place that gives advice: every failure becomes what happened, which object, what it means for the data, the
//! next command, and an exit code. All other modules state facts. One file for each floor that failures come from.

mod config;
mod engine;
pub mod hints;
mod journal;
mod outcome;
mod server;

use pgteal_core::deployment::Side;
use pgteal_core::postgres::{self, ConnInfoError};
use pgteal_core::providers::ProviderError;
use pgteal_core::router::RouterError;
use pgteal_saga::driver::Outcome;
use pgteal_saga::{DriverError, JournalError, StepError};
use serde::Serialize;

use crate::config::ConfigError;
use crate::exit::Exit;
use crate::run::Clients;
use crate::ui::{Style, Ui};

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] Box<ConfigError>),
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
    Journal(#[from] Box<JournalError>),
    /// The engine could not drive the run.
    #[error(transparent)]
    Driver(#[from] Box<DriverError>),
    /// The engine could not go on in the middle of a cutover.
    #[error("{error}")]
    Adrift {
        /// What the engine said.
        error: Box<DriverError>,
        /// Where that leaves the clients.
        clients: Clients,
    },
    /// A server.
    #[error(transparent)]
    Server(#[from] Box<postgres::Error>),
    /// Whatever makes green.
    #[error(transparent)]
    Provider(#[from] Box<ProviderError>),
    /// The proxy.
    #[error(transparent)]
    Router(#[from] Box<RouterError>),
    /// A look or deed of the domain outside any run.
    #[error(transparent)]
    Step(Box<StepError>),
    /// A run ended otherwise than asked for, or rests.
    #[error("{}", .0.what)]
    Ended(Box<Advice>),
    /// Blockers that no waiver covers.
    #[error("{count} {} the upgrade", if *count == 1 { "finding blocks" } else { "findings block" })]
    Blocked {
        /// How many.
        count: usize,
    },
    /// Tables differ or could not be compared.
    #[error("{count} {} not match", if *count == 1 { "table does" } else { "tables do" })]
    Mismatch {
        /// How many.
        count: usize,
        /// The first of them.
        first: String,
    },
    /// The command does not fit where the deployment stands.
    #[error("{why}")]
    NotNow {
        /// `pgteal switch`.
        command: &'static str,
        /// Why not.
        why: String,
        /// What does fit.
        next: Vec<&'static str>,
    },
    /// What cannot be taken back was not confirmed, and nobody can be asked.
    #[error("{command} cannot be taken back, and there is no terminal to ask at")]
    NotConfirmed {
        /// As it was given: `pgteal finish`.
        command: String,
    },
    /// The side that the operator gives up as lost is there.
    #[error("{side} answers at {address}, so it is not lost; given up, it would keep {keeps}")]
    Answers {
        /// `pgteal undo`.
        command: &'static str,
        /// The side.
        side: Side,
        /// Where it answers.
        address: String,
        /// What would be left behind on it.
        keeps: String,
    },
    /// A plan or a runbook that the engine refuses: a defect.
    #[error("the runbook is not one: {0}")]
    Runbook(String),
    /// A command line that is none.
    #[error("{what}")]
    CommandLine {
        /// What is wrong with it.
        what: String,
    },
    /// The proxy cannot start.
    #[error("the proxy cannot start: {reason}")]
    ProxyStart {
        /// What it said.
        reason: String,
    },
    /// The demo could not go on.
    #[error("demo: {0}")]
    Demo(String),
    /// The demo was asked to end.
    #[error("the demo was interrupted")]
    Interrupted,
    /// A claim of the demo did not hold.
    #[error("{failed} of {claims} claims did not hold: {first}")]
    Claims {
        /// How many did not.
        failed: usize,
        /// Of how many.
        claims: usize,
        /// The first that did not.
        first: String,
    },
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

/// Floors below return their errors by value; here they are boxed, so that every answer of a command stays small.
macro_rules! boxed {
    ($($error:ty => $variant:ident),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::$variant(Box::new(error))
            }
        })*
    };
}
boxed! {
    ConfigError => Config,
    JournalError => Journal,
    DriverError => Driver,
    postgres::Error => Server,
    ProviderError => Provider,
    RouterError => Router,
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

/// What it means for clients that a run stands still where it does.
const fn at_rest(clients: Clients) -> &'static str {
    match clients {
        Clients::Untouched => "clients are where they were; every acknowledged commit is kept",
        Clients::Held => {
            "clients are held until the proxy's own limit lets them go; the side they are on may then refuse their \
             writes (SQLSTATE 25006) until this run goes on; every acknowledged commit is kept"
        }
        Clients::Crossing => {
            "the point of no return is passed: clients are held until the proxy's own limit lets them go; those not on \
             the new side then are refused their writes (SQLSTATE 25006) until this run goes on; every acknowledged \
             commit is kept"
        }
        Clients::Moved => "clients are on the new side; every acknowledged commit is kept",
    }
}
const RESUMABLE: &str = "the journal says how far the run came; both clusters are as that says";

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
            Self::Config(error) => config::advise(error, what),
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
            Self::Journal(error) => journal::advise(error, what),
            Self::Driver(error) => engine::advise(error, what),
            Self::Adrift { error, clients } => engine::adrift(error, *clients, what),
            Self::Server(error) => server::server(error, what),
            Self::Provider(error) => server::provider(error, what),
            Self::Router(error) => server::router(error, what),
            Self::Step(error) => outcome::step(error, what),
            Self::Ended(advice) => (**advice).clone(),
            Self::Blocked { .. } => advice(
                "blocked",
                Exit::Blocked,
                None,
                UNTOUCHED,
                "settle the findings above or waive them in [[checks.waivers]], then: pgteal plan".into(),
            ),
            Self::Mismatch { first, .. } => advice(
                "mismatch",
                Exit::Blocked,
                Some(first.clone()),
                "the active side has every acknowledged commit; the other one is not fit to take over",
                "do not switch; find who writes to the other side, or begin anew: pgteal undo".into(),
            ),
            Self::NotNow { command, next, .. } => {
                advice("not-now", Exit::Usage, Some((*command).to_owned()), UNTOUCHED, next.join(", or: "))
            }
            Self::Answers { command, side, .. } => advice(
                "answers",
                Exit::Usage,
                Some(format!("server {side}")),
                UNTOUCHED,
                format!("{command}; or, if all of that is to stay there: {command} --lost {side} --yes"),
            ),
            Self::Runbook(_) => advice(
                "defect",
                Exit::Internal,
                None,
                UNTOUCHED,
                "this is a defect of pgteal; report it with your pgteal.toml".into(),
            ),
            Self::CommandLine { .. } => advice(
                "command-line",
                Exit::Usage,
                None,
                UNTOUCHED,
                "see what there is: pgteal --help, pgteal COMMAND --help".into(),
            ),
            Self::ProxyStart { .. } => advice(
                "proxy-start",
                Exit::Usage,
                Some("proxy".into()),
                "no client was served by it; servers and data are untouched",
                "settle what is named, or name other addresses in [proxy] of pgteal.toml, then: pgteal proxy"
                    .into(),
            ),
            Self::Demo(_) => advice(
                "demo",
                Exit::Internal,
                None,
                "only the demo's own clusters are concerned; they were removed",
                "run it again with --keep and look at its clusters and logs".into(),
            ),
            Self::Interrupted => advice(
                "interrupted",
                Exit::Resting,
                None,
                "only the demo's own clusters are concerned; they were removed",
                "run it again: pgteal demo".into(),
            ),
            Self::Claims { first, .. } => advice(
                "claim-failed",
                Exit::ClaimFailed,
                Some(first.clone()),
                "only the demo's own clusters are concerned",
                "run it again with --keep and look at its clusters and logs".into(),
            ),
            Self::NotConfirmed { command } => advice(
                "argument",
                Exit::Usage,
                Some("--yes".into()),
                UNTOUCHED,
                format!("if it is meant: {command} --yes"),
            ),
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

    /// How a run ended, as a failure; `None` when it ended as asked for. `alone` says that nobody drove it until the time of
    /// its hold was over.
    #[must_use]
    pub fn of_outcome(kind: &str, outcome: &Outcome, clients: Clients, alone: bool) -> Option<Self> {
        outcome::advise(kind, outcome, clients, alone).map(|advice| Self::Ended(Box::new(advice)))
    }

    /// Shows the failure and answers the exit code.
    pub fn report(&self, ui: &Ui) -> Exit {
        let mut advice = self.advice();
        advice.next = ui.spelled(&advice.next);
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
