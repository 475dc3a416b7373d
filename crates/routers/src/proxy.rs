//! Owns the controller's side of pgteal's own proxy: its console, spoken over the PostgreSQL protocol.
//! Refuses to know how the proxy does it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pgteal_core::deployment::Side;
use pgteal_core::postgres::{
    Answer, ConnInfo, ConnInfoError, ConnectFailure, Console, Error, Purpose, Server,
};
use pgteal_core::router::{Asked, Census, Drained, Pinned, Prepared, Router, RouterError, RouterState};
use tokio::sync::Mutex;

/// Database name by which the proxy knows that a client wants the console.
pub const CONSOLE_DATABASE: &str = "pgteal";
/// SQLSTATE object_not_in_prerequisite_state: the console refused and changed nothing.
const REFUSED: &str = "55000";
/// SQLSTATE syntax_error: there is no such command, or not of this form.
const NOT_UNDERSTOOD: &str = "42601";
/// How long a console command without a bound of its own may take. The console answers from memory;
/// a second without an answer means that the proxy is gone or stopped.
const ANSWER_BOUND: Duration = Duration::from_secs(1);
/// How long to wait for the console to accept a connection.
const CONNECT_BOUND: Duration = Duration::from_secs(2);

/// The console of one pgteal proxy.
#[derive(Debug)]
pub struct ProxyRouter {
    console: Server,
    clients: ConnInfo,
    /// The run that commands are sent for; shown by the proxy to whoever asks why it holds.
    run: String,
    /// One warm connection: a cutover has no time to connect. Replaced when it breaks.
    warm: Mutex<Option<Arc<Console>>>,
}

impl ProxyRouter {
    /// A router whose console is reached as `console` says, and by clients as `clients` does, whoever logs in there. Reads the
    /// certificate files, opens no connection.
    ///
    /// # Errors
    /// A certificate or key file that cannot be used.
    pub fn new(name: &str, console: ConnInfo, clients: ConnInfo, run: &str) -> Result<Self, ConnInfoError> {
        Ok(Self {
            console: Server::new(name, console)?,
            clients,
            run: run.to_owned(),
            warm: Mutex::new(None),
        })
    }

    async fn console(&self, command: &str) -> Result<Arc<Console>, RouterError> {
        let mut slot = self.warm.lock().await;
        if let Some(console) = slot.as_ref().filter(|console| !console.is_closed()) {
            return Ok(Arc::clone(console));
        }
        let purpose = Purpose::control("router");
        let opened = Console::open(&self.console, CONSOLE_DATABASE, &purpose, CONNECT_BOUND).await;
        let console = Arc::new(opened.map_err(|error| self.not_said(command, &error))?);
        *slot = Some(Arc::clone(&console));
        Ok(console)
    }

    /// Nothing was sent, so the proxy's state did not change.
    fn not_said(&self, command: &str, error: &Error) -> RouterError {
        let (router, command) = (self.console.name().to_owned(), command.to_owned());
        let (failure, message) = match error {
            Error::Connect { failure, message, .. } => (*failure, message.clone()),
            other => (ConnectFailure::Other, other.to_string()),
        };
        let reason =
            format!("cannot connect to the console at {}: {message}", self.console.conninfo().address());
        match failure {
            ConnectFailure::Unreachable | ConnectFailure::NotReady => {
                RouterError::Unknown { router, command, reason }
            }
            failure => RouterError::NotAdmitted { router, command, failure, reason },
        }
    }

    /// Sends one command and returns its only row. `bound` is added to the console's own answer time.
    async fn command(&self, command: &str, bound: Duration) -> Result<Row, RouterError> {
        let row = self.rows(command, bound).await?.into_iter().next();
        row.ok_or_else(|| RouterError::Unknown {
            router: self.console.name().to_owned(),
            command: command.to_owned(),
            reason: "the console answered without a row".to_owned(),
        })
    }

    async fn rows(&self, command: &str, bound: Duration) -> Result<Vec<Row>, RouterError> {
        let console = self.console(command).await?;
        match console.ask(command, bound + ANSWER_BOUND).await {
            Ok(rows) => Ok(rows.into_iter().map(Row).collect()),
            Err(error) => {
                if error.ends_session() {
                    *self.warm.lock().await = None;
                }
                Err(self.refusal(command, &error))
            }
        }
    }

    fn refusal(&self, command: &str, error: &Error) -> RouterError {
        let (router, command) = (self.console.name().to_owned(), command.to_owned());
        match error {
            Error::Statement(said)
                if said.sqlstate.code() == REFUSED && said.message.starts_with("stale epoch") =>
            {
                RouterError::StaleEpoch { router, command, reason: said.message.clone() }
            }
            Error::Statement(said) if said.sqlstate.code() == NOT_UNDERSTOOD => {
                RouterError::NotUnderstood { router, command, reason: said.message.clone() }
            }
            Error::Statement(said) => RouterError::Refused { router, command, reason: said.message.clone() },
            Error::TimedOut { limit, .. } => {
                RouterError::Unknown { router, command, reason: format!("no answer within {limit:?}") }
            }
            Error::Lost { message, .. } | Error::Unexpected { message, .. } => {
                RouterError::Unknown { router, command, reason: message.clone() }
            }
            other => RouterError::Unknown { router, command, reason: other.to_string() },
        }
    }
}

#[async_trait]
impl Router for ProxyRouter {
    fn name(&self) -> &str {
        self.console.name()
    }

    fn address(&self) -> Option<ConnInfo> {
        Some(self.clients.clone())
    }

    async fn state(&self) -> Result<RouterState, RouterError> {
        let row = self.command("SHOW STATE", Duration::ZERO).await?;
        row.state().map_err(|reason| RouterError::Unknown {
            router: self.console.name().to_owned(),
            command: "SHOW STATE".to_owned(),
            reason,
        })
    }

    async fn census(&self, bound: Duration) -> Result<Census, RouterError> {
        self.command(&format!("LOOK LIMIT {}", bound.as_millis()), bound).await?;
        let mut census = Census::default();
        for row in self.rows("SHOW SESSIONS", Duration::ZERO).await? {
            row.counted(&mut census);
        }
        Ok(census)
    }

    async fn leads_to(&self, backend_pid: i32) -> Result<bool, RouterError> {
        let pid = backend_pid.to_string();
        let upstreams = self.rows("SHOW UPSTREAMS", Duration::ZERO).await?;
        Ok(upstreams.iter().any(|row| row.text("remote_pid") == Some(&pid)))
    }

    async fn ask(&self, side: Side, bound: Duration) -> Result<Asked, RouterError> {
        let command = format!("ASK {side} LIMIT {}", bound.as_millis());
        let row = self.command(&command, bound).await?;
        let system = row.text("system_identifier").and_then(|text| text.parse().ok());
        let system = system.ok_or_else(|| RouterError::Unknown {
            router: self.console.name().to_owned(),
            command,
            reason: format!("it did not say which cluster its {side} is of"),
        })?;
        Ok(Asked { system, is_standby: row.text("in_recovery") != Some("false") })
    }

    async fn prepare(&self, to: Side, epoch: u64, bound: Duration) -> Result<Prepared, RouterError> {
        let command = format!("WARM {to} EPOCH {epoch} LIMIT {}", bound.as_millis());
        Ok(self.command(&command, bound).await?.prepared())
    }

    async fn unprepare(&self, epoch: u64) -> Result<(), RouterError> {
        self.command(&format!("COOL EPOCH {epoch}"), Duration::ZERO).await.map(drop)
    }

    async fn hold(&self, epoch: u64, limit: Duration) -> Result<(), RouterError> {
        let command = format!("HOLD EPOCH {epoch} LIMIT {} RUN '{}'", limit.as_millis(), self.run);
        self.command(&command, Duration::ZERO).await.map(drop)
    }

    async fn drain(&self, epoch: u64, budget: Duration, terminate: bool) -> Result<Drained, RouterError> {
        let end = if terminate { " TERMINATE" } else { "" };
        let command = format!("DRAIN EPOCH {epoch} BUDGET {}{end}", budget.as_millis());
        let row = self.command(&command, budget).await?;
        Ok(Drained { busy: row.number("busy"), terminated: row.number("terminated") })
    }

    async fn settle(&self, epoch: u64, bound: Duration) -> Result<Prepared, RouterError> {
        let command = format!("SETTLE EPOCH {epoch} LIMIT {}", bound.as_millis());
        Ok(self.command(&command, bound).await?.prepared())
    }

    async fn repoint(&self, to: Side, epoch: u64) -> Result<(), RouterError> {
        self.command(&format!("REPOINT {to} EPOCH {epoch}"), Duration::ZERO).await.map(drop)
    }

    async fn release(&self, epoch: u64) -> Result<(), RouterError> {
        self.command(&format!("RELEASE EPOCH {epoch}"), Duration::ZERO).await.map(drop)
    }
}

/// One answer of the console.
#[derive(Debug)]
struct Row(Answer);

impl Row {
    fn text(&self, column: &str) -> Option<&str> {
        self.0.text(column)
    }

    fn number(&self, column: &str) -> u64 {
        self.text(column).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// One of `SHOW SESSIONS`.
    fn counted(&self, census: &mut Census) {
        let text = |column| self.text(column).unwrap_or_default().to_owned();
        match self.text("class") {
            Some("pinned") => census.pinned.push(Pinned {
                reason: text("reason"),
                application_name: text("application_name"),
                user: text("user"),
                database: text("database"),
                client_addr: text("client_addr"),
                since: Duration::from_millis(self.number("since_ms")),
            }),
            Some("draining") => {
                census.draining += 1;
                census.longest = census.longest.max(Duration::from_millis(self.number("transaction_ms")));
            }
            _ => census.movable += 1,
        }
    }

    fn prepared(&self) -> Prepared {
        Prepared {
            sessions: self.number("sessions"),
            warm: self.number("warm"),
            pinned: self.number("pinned"),
            failed: self.number("failed"),
            failed_reason: self.text("failed_reason").map(str::to_owned),
            unready: self.number("unready"),
        }
    }

    fn state(&self) -> Result<RouterState, String> {
        let route = self.text("route").ok_or("the state has no route")?.parse()?;
        let epoch = self.number("epoch");
        Ok(RouterState {
            route,
            held_by: (self.text("state") == Some("held")).then_some(epoch),
            epoch,
            clients: self.number("clients"),
            busy: self.number("busy"),
            waiting: self.number("held"),
            hold_left: Duration::from_millis(self.number("hold_remaining_ms")),
            longest_transaction: Duration::from_millis(self.number("longest_transaction_ms")),
            warm_side: self.text("warm_side").and_then(|side| side.parse().ok()),
            warm: self.number("warm"),
            pinned: self.number("pinned"),
            left_behind: self.number("left_behind"),
            takes_commands: self.text("access") != Some("read"),
            predecessor: self.text("predecessor").map(|_| self.number("predecessor")),
        })
    }
}
