//! Opens one connection, with the TLS that the settings ask for, and says what went wrong with it. Knows nothing of what is
//! said on it: to a server, or to the console of something that stands before one.

use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_postgres::config::Config;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};

use crate::error::{ConnectFailure, Error, Place, Result, StatementError};
use crate::server::Server;
use crate::tls::Tls;
use crate::version::Version;

/// A connection that is open.
pub(crate) struct Dialled {
    pub(crate) client: Client,
    /// What the other end says that it is, if it is a version.
    pub(crate) version: Option<Version>,
    /// Its last words, once it has ended.
    pub(crate) ended: Arc<OnceLock<String>>,
}

/// Opens a connection and logs in, within `bound`.
pub(crate) async fn dial(
    server: &Server,
    database: &str,
    config: &Config,
    bound: Duration,
) -> Result<Dialled> {
    let ended = Arc::new(OnceLock::new());
    let dial = async {
        Ok(match server.tls() {
            Tls::Off => {
                let (client, connection) = config.connect(NoTls).await?;
                let version = connection.parameter("server_version").and_then(Version::from_text);
                tokio::spawn(drive(connection, Arc::clone(&ended)));
                (client, version)
            }
            Tls::On(tls) => {
                let (client, connection) = config.connect(tls.clone()).await?;
                let version = connection.parameter("server_version").and_then(Version::from_text);
                tokio::spawn(drive(connection, Arc::clone(&ended)));
                (client, version)
            }
        })
    };
    match timeout(bound, dial).await {
        Ok(Ok((client, version))) => Ok(Dialled { client, version, ended }),
        Ok(Err(e)) => Err(failed(server, database, classify(&e), describe(&e), e.code().cloned())),
        Err(_) => {
            let message = format!("no session within {} ms", bound.as_millis());
            Err(failed(server, database, ConnectFailure::Unreachable, message, None))
        }
    }
}

/// No connection came about.
pub(crate) fn failed(
    server: &Server,
    database: &str,
    failure: ConnectFailure,
    message: String,
    sqlstate: Option<SqlState>,
) -> Error {
    Error::Connect {
        server: server.name().to_owned(),
        address: server.conninfo().address(),
        database: database.to_owned(),
        failure,
        message,
        sqlstate,
    }
}

/// What the driver says of a call, as a fact; `ended` has the last words of a connection that is lost.
pub(crate) fn explain(place: &Place, error: &tokio_postgres::Error, ended: &OnceLock<String>) -> Error {
    if let Some(db) = error.as_db_error() {
        return Error::Statement(Box::new(StatementError {
            place: place.clone(),
            severity: db.severity().to_owned(),
            sqlstate: db.code().clone(),
            message: db.message().to_owned(),
            detail: db.detail().map(str::to_owned),
            hint: db.hint().map(str::to_owned),
            context: db.where_().map(str::to_owned),
        }));
    }
    let place = Box::new(place.clone());
    if error.is_closed() || is_io(error) {
        let message = ended.get().cloned().unwrap_or_else(|| describe(error));
        return Error::Lost { place, message };
    }
    Error::Unexpected { place, message: describe(error) }
}

/// Moves bytes until the connection ends, and keeps the last words of the server.
async fn drive<S, T>(mut connection: Connection<S, T>, ended: Arc<OnceLock<String>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => tracing::debug!(notice = %notice, "server notice"),
            Some(Ok(_)) => {}
            Some(Err(e)) => {
                let _ = ended.set(describe(&e));
                return;
            }
            None => return,
        }
    }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|s| s.is::<std::io::Error>())
}

/// The error with its causes; the driver's own text alone says "db error".
pub(crate) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}

fn classify(error: &tokio_postgres::Error) -> ConnectFailure {
    if let Some(code) = error.code() {
        return match code.code() {
            "3D000" => ConnectFailure::NoSuchDatabase,
            "57P03" | "53300" => ConnectFailure::NotReady,
            state if state.starts_with("28") => ConnectFailure::Authentication,
            _ => ConnectFailure::Other,
        };
    }
    let text = error.to_string();
    if text.contains("TLS") {
        ConnectFailure::Tls
    } else if text.contains("authentication") || text.contains("invalid configuration") {
        ConnectFailure::Authentication
    } else if is_io(error) || error.is_closed() {
        ConnectFailure::Unreachable
    } else {
        ConnectFailure::Other
    }
}
