//! The ways client sessions speak to the server. Owns their names and what each asks of a new connection; refuses to
//! know transactions.

use serde::Serialize;

/// How one session uses the PostgreSQL protocol. A proxy has to carry all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// Statements prepared once by the driver, awaited one by one.
    Prepared,
    /// As `Prepared`, with unqualified names that only resolve while `SET search_path` of the session holds.
    SearchPath,
    /// As `SearchPath`, but set by the start-up packet's `options`. PgBouncer before 1.20 refuses it.
    StartupOptions,
    /// As `Prepared`, with all statements up to and including COMMIT sent before the first answer is awaited.
    Pipelined,
    /// The simple query protocol, statement by statement.
    Simple,
    /// `PREPARE` and `EXECUTE` in SQL over the simple query protocol.
    SqlPrepare,
    /// BEGIN to COMMIT in one simple query message.
    OneMessage,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Dialect; 7] = [
        Dialect::Prepared,
        Dialect::Simple,
        Dialect::SearchPath,
        Dialect::Pipelined,
        Dialect::SqlPrepare,
        Dialect::StartupOptions,
        Dialect::OneMessage,
    ];

    /// Whether table names are written without their schema.
    pub(crate) fn unqualified(self) -> bool {
        matches!(self, Dialect::SearchPath | Dialect::StartupOptions)
    }

    /// Whether the driver prepares every statement when it connects.
    pub(crate) fn prepares(self) -> bool {
        matches!(self, Dialect::Prepared | Dialect::SearchPath | Dialect::StartupOptions | Dialect::Pipelined)
    }
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Dialect::Prepared => "prepared",
            Dialect::SearchPath => "search_path",
            Dialect::StartupOptions => "startup_options",
            Dialect::Pipelined => "pipelined",
            Dialect::Simple => "simple",
            Dialect::SqlPrepare => "sql_prepare",
            Dialect::OneMessage => "one_message",
        })
    }
}
