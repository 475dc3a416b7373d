//! `compare-drivers`: the test suites that drivers come with, run against a server and through the proxy, and compared name by
//! name. Owns the order of runs and what is printed; refuses to know suites and to excuse differences.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a developer's tool speaks on its terminal")]

mod asyncpg;
mod differences;
mod place;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;

use differences::Differences;
use place::Place;

/// What became of each test of a suite, by the test's name.
type Outcomes = BTreeMap<String, String>;

/// The suites that drivers come with, direct and through the proxy.
#[derive(Debug, Parser)]
#[command(name = "compare-drivers")]
struct Args {
    /// The major version of the server.
    #[arg(long, default_value_t = 18)]
    major: u16,
    /// Only tests whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let differences = Differences::read()?;
    let (direct, proxied) = both(args.major, &args.only).await?;
    let mut broken = Vec::new();
    for (name, line) in differences.judge("asyncpg", &direct, &proxied) {
        if still_different(&differences, args.major, &name).await? {
            broken.push(line);
        } else {
            println!("not every time: {line}");
        }
    }
    for line in &broken {
        println!("{line}");
    }
    println!("{} tests, {} unexplained differences", direct.len(), broken.len());
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A test that measures time may fail on a busy machine, on either way: alone, it has two more chances to end alike.
async fn still_different(differences: &Differences, major: u16, name: &str) -> Result<bool> {
    // What a class does before or after its tests is called by the class, in parentheses.
    let only = name.split(['(', ')']).nth(1).unwrap_or(name);
    for _ in 0..2 {
        let (direct, proxied) = both(major, only).await?;
        if !differences.judge("asyncpg", &direct, &proxied).iter().any(|(other, _)| other == name) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn both(major: u16, only: &str) -> Result<(Outcomes, Outcomes)> {
    let direct = run("asyncpg", only, Place::direct(major).await?).await?;
    Ok((direct, run("asyncpg", only, Place::proxied(major).await?).await?))
}

async fn run(suite: &str, only: &str, place: Place) -> Result<Outcomes> {
    let start = Instant::now();
    let outcomes = asyncpg::run(&place, only).await?;
    ensure!(!outcomes.is_empty(), "{suite}: no test is called {only}");
    let ok = outcomes.values().filter(|outcome| *outcome == "ok").count();
    eprintln!(
        "{suite}, {}: {ok} of {} ok in {:.0} s",
        place.how(),
        outcomes.len(),
        start.elapsed().as_secs_f64()
    );
    Ok(outcomes)
}
