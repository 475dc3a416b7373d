//! How tests talk to a cluster: addresses, connections, statements. Refuses to know the server's processes.

use super::{Cluster, ClusterError};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

impl Cluster {
    /// The address over TCP in libpq's words: superuser `postgres`, no password, database `db`.
    #[must_use]
    pub fn conninfo(&self, db: &str) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname={db}", self.port())
    }

    /// The address over the Unix socket.
    #[must_use]
    pub fn socket_conninfo(&self, db: &str) -> String {
        format!("host={} port={} user=postgres dbname={db}", self.socket_dir().display(), self.port())
    }

    /// The address over TCP as a URI.
    #[must_use]
    pub fn uri(&self, db: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{db}", self.port())
    }

    /// A driver's configuration over TCP, as superuser, for tests that want another user or more options.
    #[must_use]
    pub fn config(&self, db: &str) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.port()).user("postgres").dbname(db);
        config
    }

    /// A session over the Unix socket as superuser. It ends when the client is dropped.
    ///
    /// # Errors
    /// [`ClusterError::Sql`].
    pub async fn connect(&self, db: &str) -> Result<Client, ClusterError> {
        let mut config = Config::new();
        config.host_path(self.socket_dir()).port(self.port()).user("postgres").dbname(db);
        let failed = |source| ClusterError::Sql {
            cluster: self.name().to_owned(),
            statement: format!("connect to {db}"),
            source,
        };
        let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
        // Its end, good or bad, shows in the client's next call.
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs statements in database `postgres` and returns the rows as `psql -At` prints them: columns joined by `|`,
    /// rows by newline, NULL empty. Several statements run in one implicit transaction.
    ///
    /// # Errors
    /// [`ClusterError::Sql`].
    pub async fn sql(&self, statements: &str) -> Result<String, ClusterError> {
        self.sql_in("postgres", statements).await
    }

    /// [`Self::sql`] in database `db`, in a new session.
    ///
    /// # Errors
    /// [`ClusterError::Sql`].
    pub async fn sql_in(&self, db: &str, statements: &str) -> Result<String, ClusterError> {
        let client = self.connect(db).await?;
        let messages = client.simple_query(statements).await.map_err(|source| ClusterError::Sql {
            cluster: self.name().to_owned(),
            statement: statements.to_owned(),
            source,
        })?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let fields: Vec<&str> = (0..row.len()).map(|n| row.get(n).unwrap_or("")).collect();
                Some(fields.join("|"))
            }
            _ => None,
        });
        Ok(rows.collect::<Vec<_>>().join("\n"))
    }
}
