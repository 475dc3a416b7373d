//! `cargo xtask`: the only tool a contributor needs. Owns the command line; each command has its own file. Refuses
//! to know the product: no crate of the product is a dependency, so `xtask` builds in seconds on a fresh clone.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a developer's tool speaks on its terminal")]

mod ci;
mod debian;
mod deny;
mod drivers;
mod fuzz;
mod pg;
mod product;
mod shell;
mod suites;
mod test;
mod tidy;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

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
    /// Fetch the drivers that tests speak to the proxy with, and compare their own tests direct and through the proxy
    Drivers {
        /// Only fetch
        #[arg(long)]
        fetch: bool,
        /// Compare only this suite; may be given again
        #[arg(long, conflicts_with = "fetch")]
        only: Vec<suites::Suite>,
        /// Passed on to `compare-drivers`: `--test <part of a test's name>`, `--major <version>`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run all tests, on real servers of every supported major
    Test {
        /// Passed on to `cargo test`: `-p <package>` and `--test <name>` choose, else it is the whole workspace
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the fuzz targets, two at once, from the corpus in `fuzz/corpus`
    Fuzz {
        /// Each target for so long
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Put into `fuzz/corpus` what was found to lead further, as few as reach as much
        #[arg(long)]
        keep: bool,
        /// The targets; all when none is named
        targets: Vec<String>,
    },
    /// Run what a change must pass: fmt, tidy, clippy, deny, docs, instructions, fuzz, tests
    Ci,
    /// Check the rules of the house that a machine can check
    Tidy,
    /// Build for release and run `pgteal demo`
    Demo {
        /// Passed on to `pgteal demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build for release and run a benchmark: `cutover`, `proxy` or `instructions`
    Bench {
        /// The benchmark: `bench-<name>` of the test kit
        name: String,
        /// Passed on to the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Pg { majors } => pg::run(&majors),
        Command::Test { args } => test::run(&args),
        Command::Fuzz { seconds, keep, targets } => fuzz::run(seconds, keep, &targets),
        Command::Ci => ci::run(),
        Command::Tidy => tidy::run(),
        Command::Demo { args } => return product::demo(&args),
        Command::Drivers { fetch: true, .. } => drivers::run(),
        Command::Drivers { only, args, .. } => return suites::run(&only, &args),
        Command::Bench { name, args } => return product::bench(&name, &args),
    }?;
    Ok(ExitCode::SUCCESS)
}
