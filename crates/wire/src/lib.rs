//! PostgreSQL protocol bytes: framing, startup, messages, SCRAM, cancel keys, the transaction tracker.
//! Owns the meaning of bytes already read; refuses to know sockets, SQL and runtimes.
//!
//! Source of the formats: PostgreSQL documentation, chapter "Frontend/Backend Protocol".

pub mod cancel;
pub mod frame;
pub mod md5;
pub mod message;
pub mod scram;
pub mod startup;
pub mod tracker;
