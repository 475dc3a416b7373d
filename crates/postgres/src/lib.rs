//! Typed operations on one PostgreSQL server: connecting, reading catalogues, logical replication objects, the
//! fence, sequences and digests. Knows nothing of deployments' sides, of plans or of who calls; every function takes a
//! [`Session`] and states facts about that one server.

mod conninfo;
mod error;
mod lsn;
mod password;
mod purpose;
pub mod quote;
mod record;
mod server;
mod session;
mod tls;
mod tx;
mod version;

pub use conninfo::{ConnInfo, ConnInfoError, Environment, SslMode};
pub use error::{Certainty, ConnectFailure, Error, Place, Result, StatementError};
pub use lsn::{InvalidLsn, Lsn};
pub use password::Password;
pub use purpose::Purpose;
pub use record::Record;
pub use server::Server;
pub use session::Session;
pub use tokio_postgres::error::SqlState;
pub use tokio_postgres::types::ToSql;
pub use tx::Tx;
pub use version::Version;
