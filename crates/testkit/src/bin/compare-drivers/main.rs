//! `compare-drivers`: the test suites that drivers come with, run against a server and through the proxy, and compared name by
//! name. Owns the order of runs and what is printed; refuses to know suites and to excuse differences.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a developer's tool speaks on its terminal")]

mod asyncpg;
mod differences;
mod node_postgres;
mod place;
mod psql;
mod psycopg;
mod suite;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;

use differences::Differences;
use place::Place;
use suite::Suite;

/// What became of each test of a suite, by the test's name: a word, or all that a script has said.
type Outcomes = BTreeMap<String, String>;

/// How often what ended otherwise is run again, on both ways: a test that measures time may fail on a busy machine.
const CHANCES: u32 = 2;

/// The suites that drivers come with, direct and through the proxy.
#[derive(Debug, Parser)]
#[command(name = "compare-drivers")]
struct Args {
    /// Only this suite; may be given again.
    #[arg(long)]
    only: Vec<Suite>,
    /// Only tests whose name contains this.
    #[arg(long)]
    test: Option<String>,
    /// The major version of the server, where the suite does not belong to one.
    #[arg(long, default_value_t = 18)]
    major: u16,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let differences = Differences::read()?;
    let chosen = if args.only.is_empty() { Suite::ALL.to_vec() } else { args.only };
    let only: Vec<String> = args.test.into_iter().collect();
    let (mut tests, mut broken) = (0, Vec::new());
    for suite in chosen {
        let (found, lines) = compare(suite, args.major, &only, &differences).await?;
        tests += found;
        broken.extend(lines);
    }
    for line in &broken {
        println!("{line}");
    }
    println!("{tests} tests, {} unexplained differences", broken.len());
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many tests `suite` has, and a line on each that ends otherwise every time.
async fn compare(
    suite: Suite,
    major: u16,
    only: &[String],
    differences: &Differences,
) -> Result<(usize, Vec<String>)> {
    let (direct, proxied) = both(suite, major, only).await?;
    let mut broken = differences.judge(suite.name(), &direct, &proxied);
    for _ in 0..CHANCES {
        if broken.is_empty() {
            break;
        }
        let names: Vec<String> = broken.iter().map(|(name, _)| again(name).to_owned()).collect();
        let (direct_again, proxied_again) = both(suite, major, &names).await?;
        let still = differences.judge(suite.name(), &direct_again, &proxied_again);
        broken.retain(|(name, line)| {
            if direct.get(name) != direct_again.get(name) {
                println!("not the same on two direct runs: {name}");
            }
            let remains = still.iter().any(|(other, _)| other == name);
            if !remains {
                println!("not every time: {line}");
            }
            remains
        });
    }
    Ok((direct.len(), broken.into_iter().map(|(_, line)| line).collect()))
}

/// What a test is called when it is to be run again: what a class does before or after its tests is called by the class, in
/// parentheses.
fn again(name: &str) -> &str {
    name.strip_suffix(')').and_then(|name| name.split_once(" (")).map_or(name, |(_, class)| class)
}

async fn both(suite: Suite, major: u16, only: &[String]) -> Result<(Outcomes, Outcomes)> {
    let major = suite.major().unwrap_or(major);
    let direct = run(suite, only, Place::direct(major).await?).await?;
    Ok((direct, run(suite, only, Place::proxied(major).await?).await?))
}

async fn run(suite: Suite, only: &[String], place: Place) -> Result<Outcomes> {
    let start = Instant::now();
    let outcomes = suite.run(&place, only).await?;
    ensure!(!outcomes.is_empty(), "{}: no test is called {}", suite.name(), only.join(" or "));
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("{}, {}: {} in {seconds:.0} s", suite.name(), place.how(), told(&outcomes));
    Ok(outcomes)
}

/// How many tests ended how.
fn told(outcomes: &Outcomes) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for outcome in outcomes.values() {
        *counts.entry(if outcome.contains('\n') { "scripts" } else { outcome }).or_default() += 1;
    }
    counts.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_a_class_does_is_run_again_by_the_name_of_the_class() {
        assert_eq!(super::again("tearDownClass (tests.test_a.TestA)"), "tests.test_a.TestA");
        assert_eq!(super::again("tests/test_a.py::test_b[name (c)]"), "tests/test_a.py::test_b[name (c)]");
    }
}
