//! What a workload is asked to do. Owns the defaults and the limits; refuses to know how sessions carry it out.

use std::time::Duration;

use tokio_postgres::Config;

use crate::dialect::Dialect;

/// A workload that could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The connection string is not one. The parser's message never repeats the string.
    #[error("connection string for {book}: {source}")]
    Conninfo { book: &'static str, source: tokio_postgres::Error },
    /// A session could not connect when the workload began.
    #[error("session {session} could not connect to {book}: {message}")]
    Connect { session: u32, book: &'static str, message: String },
    /// The tables are missing, or these session numbers are used already.
    #[error("the ledger of {book} could not be opened for sessions {first} to {last}: {source}")]
    Open { book: &'static str, first: u32, last: u32, source: tokio_postgres::Error },
    /// The shop has no customers or products to order for.
    #[error("{book} holds no data to work with: create it with at least one row")]
    Empty { book: &'static str },
    /// The configuration contradicts itself.
    #[error("workload configuration: {0}")]
    Config(&'static str),
    /// Transactions under way did not end in time.
    #[error("waited {waited:?} for {sessions} sessions to come to rest: {parked} did")]
    NotParked { waited: Duration, sessions: u64, parked: u64 },
}

/// A workload's shape. Start from [`WorkloadConfig::new`] and change fields.
#[derive(Debug, Clone)]
pub struct WorkloadConfig {
    pub(crate) shop: Config,
    pub(crate) billing: Option<Config>,
    /// Client sessions on the shop, each with one connection. At least 1.
    pub sessions: u32,
    /// Client sessions on billing; only with [`WorkloadConfig::with_billing`].
    pub billing_sessions: u32,
    /// Number of the first session. A second workload on the same tables needs numbers of its own.
    pub first_session: u32,
    /// Transactions a second of all sessions together, at fixed instants whatever the server does (open loop), so
    /// that a stall is seen by every transaction that was due in it. `None`: each session as fast as it can.
    pub rate: Option<f64>,
    /// Decides what each transaction does.
    pub seed: u64,
    /// How sessions speak, dealt in turn.
    pub dialects: Vec<Dialect>,
    /// After this a transaction counts as failed or unknown and its connection is thrown away.
    pub transaction_limit: Duration,
    /// How long a session tries to get a lost connection back before it gives up for good.
    pub reconnect_limit: Duration,
    /// The record's size limit, in transactions of all sessions (32 bytes each).
    pub max_transactions: usize,
}

impl WorkloadConfig {
    /// Sixteen sessions, 500 transactions a second, every dialect.
    ///
    /// # Errors
    /// When `shop` is neither a `key=value` string nor a URI.
    pub fn new(shop: &str) -> Result<Self, WorkloadError> {
        Ok(WorkloadConfig {
            shop: parse("shop", shop)?,
            billing: None,
            sessions: 16,
            billing_sessions: 0,
            first_session: 0,
            rate: Some(500.0),
            seed: 0x5eed,
            dialects: Dialect::ALL.to_vec(),
            transaction_limit: Duration::from_secs(60),
            reconnect_limit: Duration::from_secs(60),
            max_transactions: 4_000_000,
        })
    }

    /// Adds sessions on the second database.
    ///
    /// # Errors
    /// When `billing` is neither a `key=value` string nor a URI.
    pub fn with_billing(mut self, billing: &str, sessions: u32) -> Result<Self, WorkloadError> {
        self.billing = Some(parse("billing", billing)?);
        self.billing_sessions = sessions;
        Ok(self)
    }

    pub(crate) fn validated(self) -> Result<Self, WorkloadError> {
        let wrong = if self.sessions == 0 {
            Some("at least one session on the shop")
        } else if self.billing_sessions > 0 && self.billing.is_none() {
            Some("billing sessions need a billing connection string")
        } else if self.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            Some("the rate must be above zero")
        } else if self.dialects.is_empty() {
            Some("at least one dialect")
        } else {
            None
        };
        wrong.map_or(Ok(self), |text| Err(WorkloadError::Config(text)))
    }
}

fn parse(book: &'static str, conninfo: &str) -> Result<Config, WorkloadError> {
    conninfo.parse().map_err(|source| WorkloadError::Conninfo { book, source })
}
