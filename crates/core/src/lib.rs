//! The domain: deployment, runbook, checks, carrying, verification, providers. Refuses to know the
//! command line, HTTP, and which router sends the clients.

pub mod carry;
pub mod checks;
pub mod compare;
pub mod deployment;
mod drift;
pub mod failure;
pub mod preflight;
pub mod progress;
pub mod providers;
pub mod retire;
pub mod router;
pub mod steps;
pub mod switchover;
pub mod upgrade;
pub mod verify;
pub mod world;

/// The floor below, for the command line, which reaches it only through here.
pub use pgteal_postgres as postgres;
