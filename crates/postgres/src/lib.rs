//! Typed operations on one PostgreSQL server: connecting, reading catalogues, logical replication objects, the
//! fence, sequences and digests. Knows nothing of deployments' sides, of plans or of who calls; every function takes a
//! [`Session`] and states facts about that one server.

pub mod activity;
pub mod catalog;
mod conninfo;
mod console;
pub mod copy;
pub mod database;
mod dial;
pub mod digest;
mod error;
pub mod extension;
pub mod fence;
pub mod fingerprint;
pub mod identity;
pub mod inventory;
mod lsn;
pub mod marker;
pub mod names;
mod password;
pub mod publication;
mod purpose;
pub mod quote;
mod record;
pub mod replication_origin;
pub mod role;
pub mod schema;
pub mod sequence;
mod server;
mod session;
pub mod settings;
pub mod slot;
pub mod state;
pub mod subscription;
mod tls;
mod tx;
mod unlogged;
mod version;
pub mod wait;
pub mod wal;

pub use conninfo::{ConnInfo, ConnInfoError, Environment, SslMode};
pub use console::{Answer, Console};
pub use error::{Certainty, ConnectFailure, Error, Place, Result, StatementError};
pub use lsn::{InvalidLsn, Lsn};
pub use password::{Password, password_variables};
pub use purpose::Purpose;
pub use record::Record;
pub use server::Server;
pub use session::Session;
pub use tokio_postgres::error::SqlState;
pub use tokio_postgres::types::ToSql;
pub use tx::Tx;
pub use version::Version;
