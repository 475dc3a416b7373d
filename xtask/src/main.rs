//! `cargo xtask`: the only tool a contributor needs. Owns the command line; each command has its own file. Refuses
//! to know the product: no crate of the product is a dependency, so `xtask` builds in seconds on a fresh clone.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a developer's tool speaks on its terminal")]

mod debian;
mod pg;
mod shell;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Build, test and measure pgteal", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find or fetch the PostgreSQL distributions that tests and the demo use
    Pg {
        /// Majors to fetch; all supported ones when none is named
        majors: Vec<u16>,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Pg { majors } => pg::run(&majors),
    }
}
