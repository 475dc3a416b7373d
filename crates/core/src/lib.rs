//! The domain: deployment, runbook, checks, carrying, verification, providers. Refuses to know the
//! command line, HTTP, and which router sends the clients.

pub mod carry;
pub mod checks;
pub mod deployment;
pub mod progress;
pub mod providers;
pub mod router;

/// The floor below, for the command line, which reaches it only through here.
pub use pgteal_postgres as postgres;
