//! A connection to a console: what stands before servers speaks their protocol there, with commands of its own instead of
//! SQL. It is reached as a server is, by the same settings. Knows no command.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use crate::dial::{self, Dialled};
use crate::error::{Error, Place, Result};
use crate::purpose::Purpose;
use crate::server::Server;

/// One connection. Its commands are answered in order; one that is dropped before its answer may still take effect.
pub struct Console {
    client: Client,
    server: String,
    database: String,
    ended: Arc<OnceLock<String>>,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.server, self.database)
    }
}

impl Console {
    /// Logs in to the console that goes by the name of `database`, within `bound`.
    pub async fn open(server: &Server, database: &str, purpose: &Purpose, bound: Duration) -> Result<Self> {
        let config = server.plain_config(database, purpose);
        let Dialled { client, ended, .. } = dial::dial(server, database, &config, bound).await?;
        Ok(Self { client, server: server.name().to_owned(), database: database.to_owned(), ended })
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Says a command and returns the rows of its answer. Nothing is taken back when it comes late: the connection is of no
    /// more use then, for the answer would be taken for the next command's.
    pub async fn ask(&self, command: &str, bound: Duration) -> Result<Vec<Answer>> {
        let place = || Place {
            server: self.server.clone(),
            database: self.database.clone(),
            doing: format!("saying {command}"),
        };
        let messages = match timeout(bound, self.client.simple_query(command)).await {
            Ok(Ok(messages)) => messages,
            Ok(Err(e)) => return Err(dial::explain(&place(), &e, &self.ended)),
            Err(_) => {
                return Err(Error::TimedOut { place: Box::new(place()), limit: bound, settled: false });
            }
        };
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => Some(Answer(row)),
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }
}

/// One row of an answer: all its columns are text.
#[derive(Debug)]
pub struct Answer(SimpleQueryRow);

impl Answer {
    /// The text of a column; `None` where it is empty, or there is no such column.
    pub fn text(&self, column: &str) -> Option<&str> {
        self.0.try_get(column).ok().flatten().filter(|text| !text.is_empty())
    }
}
