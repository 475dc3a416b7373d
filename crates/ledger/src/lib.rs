//! The ledger workload and the oracle that proves what a switchover did to it.
//!
//! Owns a small shop with data, client sessions that write uniquely numbered transactions into it and remember
//! every answer they got, and the proof that the database holds exactly what was acknowledged. Knows connection
//! strings and SQL; refuses to know blue, green, proxies, routers and who moves the clients.

mod book;
mod config;
mod connection;
mod dialect;
mod layout;
mod live;
mod op;
mod oracle;
mod pace;
mod record;
mod session;
mod shop;
mod statement;
mod verdict;
mod window;
mod workload;

pub use book::Book;
pub use config::{WorkloadConfig, WorkloadError};
pub use dialect::Dialect;
pub use oracle::{Oracle, OracleError};
pub use record::Record;
pub use shop::{SchemaError, create_billing, create_shop};
pub use verdict::{UnknownOutcomes, Verdict};
pub use window::{Counters, WindowReport};
pub use workload::Workload;
