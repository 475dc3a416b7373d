//! The data plane: sessions, gate, routes, upstreams, admin console.
//!
//! A client session has one upstream (session mode). The gate stops sessions at transaction boundaries, the route says
//! which side they go to. Refuses to know the controller: it obeys its console, and an epoch tells drivers apart.

pub mod auth;
pub mod buffer;
pub mod config;
pub mod gate;
pub mod route;
pub mod state_file;
pub mod stream;
pub mod tls;

pub use config::Config;
pub use route::Side;
