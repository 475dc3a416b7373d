//! What operators see of the proxy and may do to it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod limits;
mod metrics;
mod roles;
#[path = "../auth/servers.rs"]
#[allow(dead_code)]
mod servers;
mod shown;
#[path = "../world/mod.rs"]
mod world;
