//! The read route, with real replicas.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

#[path = "../world/mod.rs"]
mod world;

mod fleet;
mod health;
mod refusals;
mod route;
mod switches;
