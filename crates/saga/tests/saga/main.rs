//! The engine as its users see it, on fake worlds: table, plans, stored form, journal in memory, proof kit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod driver;
mod golden;
mod memory;
mod pace;
mod plans;
mod proof;
mod story;
mod table;
mod walks;
