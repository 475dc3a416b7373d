//! The `pgteal` library behind the command: configuration, commands, rendering, advice. Knows no SQL.

pub mod cli;
pub mod commands;
pub mod config;
pub mod demo;
pub mod errors;
pub mod exit;
pub mod journal;
pub mod logging;
pub mod pgbouncer;
pub mod proxy_file;
pub mod render;
pub mod run;
pub mod servers;
pub mod sides;
mod spelling;
pub mod ui;
pub mod units;
