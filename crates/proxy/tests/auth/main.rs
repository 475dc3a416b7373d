//! Logins on both legs against real servers: a front that authenticates clients with our code and logs in to a real
//! PostgreSQL with what they proved, driven by tokio-postgres.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod certificates;
mod first_words;
mod front;
mod libpq;
mod lookup;
mod matrix;
mod refusals;
mod servers;
mod tls;
