//! The data plane: sessions, gate, routes, upstreams, admin console.
//!
//! A client session has one upstream (session mode). The gate stops sessions at transaction boundaries, the route says
//! which side they go to. Refuses to know the controller: it obeys its console, and an epoch tells drivers apart.

pub mod auth;
pub mod buffer;
mod cancel;
pub mod config;
mod console;
pub mod descriptors;
mod farewell;
pub mod gate;
#[cfg(test)]
#[path = "gate/tests.rs"]
mod gate_tests;
mod histogram;
mod listeners;
mod lobby;
mod login;
mod mailbox;
mod metrics;
#[cfg(test)]
mod model;
mod pool;
mod proxy;
pub mod proxy_protocol;
mod quota;
mod reads;
mod recorder;
mod registry;
mod roll;
pub mod route;
mod session;
mod shards;
mod shared;
mod spare;
pub mod state_file;
mod stats;
pub mod stream;
mod sync;
mod takeover;
pub mod tls;
mod upstream;

pub use config::Config;
pub use login::LoginSetupError;
pub use proxy::{Proxy, StartError};
pub use route::Side;
pub use takeover::TakeoverError;
