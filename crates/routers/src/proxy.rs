//! Owns the controller's side of pgteal's own proxy: its console, spoken over the PostgreSQL protocol.
//! Refuses to know how the proxy does it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pgteal_core::deployment::Side;
use pgteal_core::router::{Census, Drained, Pinned, Prepared, Router, RouterError, RouterState};
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, SimpleQueryRow};

/// Database name by which the proxy knows that a client wants the console.
const CONSOLE_DATABASE: &str = "pgteal";
/// SQLSTATE object_not_in_prerequisite_state: the console refused and changed nothing.
const REFUSED: &str = "55000";
/// How long a console command without a bound of its own may take. The console answers from memory;
/// a second without an answer means that the proxy is gone or stopped.
const ANSWER_BOUND: Duration = Duration::from_secs(1);
/// How long to wait for the console to accept a connection.
const CONNECT_BOUND: Duration = Duration::from_secs(2);

/// The console of one pgteal proxy.
#[derive(Debug)]
pub struct ProxyRouter {
    name: String,
    /// A host name, or the directory of the proxy's Unix socket.
    host: String,
    port: u16,
    user: String,
    /// The run that commands are sent for; shown by the proxy to whoever asks why it holds.
    run: String,
    /// One warm connection: a cutover has no time to connect. Replaced when it breaks.
    client: Mutex<Option<Arc<Client>>>,
}

impl ProxyRouter {
    /// A router that talks to the console at `host` (or Unix socket directory) and `port`; clients come in there too.
    #[must_use]
    pub fn new(name: &str, (host, port): (&str, u16), user: &str, run: &str) -> Self {
        Self {
            name: name.to_owned(),
            host: host.to_owned(),
            port,
            user: user.to_owned(),
            run: run.to_owned(),
            client: Mutex::new(None),
        }
    }

    async fn client(&self, command: &str) -> Result<Arc<Client>, RouterError> {
        let mut slot = self.client.lock().await;
        if let Some(client) = slot.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let mut config = tokio_postgres::Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .dbname(CONSOLE_DATABASE)
            .application_name("pgteal/router")
            .connect_timeout(CONNECT_BOUND);
        // Nothing was sent yet, so a failed connect is a refusal: the proxy's state did not change.
        let connected = tokio::time::timeout(CONNECT_BOUND, config.connect(NoTls)).await;
        let (client, connection) = match connected {
            Ok(Ok(pair)) => pair,
            Ok(Err(error)) => return Err(self.unreachable(command, describe(&error))),
            Err(_) => return Err(self.unreachable(command, format!("no answer within {CONNECT_BOUND:?}"))),
        };
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "console connection ended");
            }
        });
        let client = Arc::new(client);
        *slot = Some(Arc::clone(&client));
        Ok(client)
    }

    fn unreachable(&self, command: &str, reason: String) -> RouterError {
        RouterError::Unknown {
            router: self.name.clone(),
            command: command.to_owned(),
            reason: format!("cannot connect to the console at {}:{}: {reason}", self.host, self.port),
        }
    }

    /// Sends one command and returns its only row. `bound` is added to the console's own answer time.
    async fn command(&self, command: &str, bound: Duration) -> Result<Row, RouterError> {
        let row = self.rows(command, bound).await?.into_iter().next();
        row.ok_or_else(|| RouterError::Unknown {
            router: self.name.clone(),
            command: command.to_owned(),
            reason: "the console answered without a row".to_owned(),
        })
    }

    async fn rows(&self, command: &str, bound: Duration) -> Result<Vec<Row>, RouterError> {
        let client = self.client(command).await?;
        let unknown = |reason: String| RouterError::Unknown {
            router: self.name.clone(),
            command: command.to_owned(),
            reason,
        };
        match tokio::time::timeout(bound + ANSWER_BOUND, client.simple_query(command)).await {
            Err(_) => {
                // The answer may still come and would then be taken for the next command's.
                *self.client.lock().await = None;
                Err(unknown(format!("no answer within {:?}", bound + ANSWER_BOUND)))
            }
            Ok(Err(error)) => Err(self.refusal(command, &error)),
            Ok(Ok(messages)) => Ok(Row::all(messages)),
        }
    }

    fn refusal(&self, command: &str, error: &tokio_postgres::Error) -> RouterError {
        let (router, command) = (self.name.clone(), command.to_owned());
        match error.as_db_error() {
            Some(db) if db.code().code() == REFUSED && db.message().starts_with("stale epoch") => {
                RouterError::StaleEpoch { router, command, reason: db.message().to_owned() }
            }
            Some(db) => RouterError::Refused { router, command, reason: db.message().to_owned() },
            None => RouterError::Unknown { router, command, reason: describe(error) },
        }
    }
}

/// The error with its cause: tokio-postgres prints only "error connecting to server" by itself.
fn describe(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[async_trait]
impl Router for ProxyRouter {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> Option<(String, u16)> {
        Some((self.host.clone(), self.port))
    }

    async fn state(&self) -> Result<RouterState, RouterError> {
        let row = self.command("SHOW STATE", Duration::ZERO).await?;
        row.state().map_err(|reason| RouterError::Unknown {
            router: self.name.clone(),
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

/// One answer of the console: all its columns are text.
#[derive(Debug)]
struct Row(SimpleQueryRow);

impl Row {
    fn all(messages: Vec<SimpleQueryMessage>) -> Vec<Self> {
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some(Self(row)),
            _ => None,
        };
        messages.into_iter().filter_map(row).collect()
    }

    fn text(&self, column: &str) -> Option<&str> {
        self.0.try_get(column).ok().flatten().filter(|text| !text.is_empty())
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
            longest_transaction: Duration::from_millis(self.number("longest_transaction_ms")),
            warm_side: self.text("warm_side").and_then(|side| side.parse().ok()),
            warm: self.number("warm"),
            pinned: self.number("pinned"),
            left_behind: self.number("left_behind"),
        })
    }
}
