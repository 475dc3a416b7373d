//! Logins on both legs: a client proves who it is to us, and with what it proved we log in to a server as the same user.
//! Owns the exchanges and the credentials kept in between; refuses to know gates, routes and relays.
//!
//! The path of one session: [`greet::greet`] reads the startup packet, [`client::ClientLogin::run`] authenticates the
//! client and gives [`Credentials`], [`upstream::log_in`] opens a server connection with them, as often as needed.

pub mod auth_query;
pub mod client;
pub mod credentials;
pub mod greet;
pub mod lookup;
pub mod service;
pub mod target;
pub mod upstream;

mod read;
mod seed;

pub use auth_query::AuthQuery;
pub use client::{ClientLogin, ClientLoginError};
pub use credentials::Credentials;
pub use greet::{GreetError, Greeting, greet};
pub use lookup::{LookupError, StoredVerifier, VerifierLookup};
pub use seed::mock_secret;
pub use service::{ServiceLogin, ServiceLogins, ServicePasswordError};
pub use target::{Connected, Target, TargetError};
pub use upstream::{Upstream, UpstreamError, Want, log_in};
