//! `bench-cutover`: how long clients stall while they are moved from one server to another, by whom. Owns the order of
//! rounds and what is printed; refuses to know how anybody moves them.
//!
//! Every contender gets the same two fresh servers, the same data and the same load in each round, and the contenders
//! take turns, so that only ratios within one run are compared.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod arena;
mod best;
mod careful;
mod case;
mod contender;
mod disk;
mod load;
mod pgbouncer;
mod pgteal;
mod round;
mod summary;

use anyhow::{Context, Result};
use clap::Parser;

use case::Case;
use contender::Contender;

/// Longest client stall of a switchover: pgteal and two scripts on PgBouncer, same servers, same load, taking turns.
#[derive(Debug, Parser)]
#[command(name = "bench-cutover")]
struct Args {
    /// Rounds of each contender in each case.
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Major version of the server clients are moved from.
    #[arg(long, default_value_t = 15)]
    from: u16,
    /// Major version of the server they are moved to.
    #[arg(long, default_value_t = 18)]
    to: u16,
    /// Cases to run; all if none is given.
    #[arg(long = "case", value_enum)]
    cases: Vec<Case>,
    /// Contenders to run, by name; all if none is given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Transactions a second of the load.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Seconds of load before the cutover begins.
    #[arg(long, default_value_t = 3)]
    warm_up: u64,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let args = Args::parse();
    let cases = if args.cases.is_empty() { Case::ALL.to_vec() } else { args.cases.clone() };
    let names: Vec<&str> = contender::NAMES
        .into_iter()
        .filter(|name| args.only.is_empty() || args.only.iter().any(|only| only == name))
        .collect();
    anyhow::ensure!(!names.is_empty(), "no contender of {:?} is known: {:?}", args.only, contender::NAMES);

    let mut rounds = Vec::new();
    for case in cases {
        for number in 1..=args.rounds {
            for name in &names {
                let contender: Box<dyn Contender> = contender::make(name)?;
                let settings = round::Settings {
                    from: args.from,
                    to: args.to,
                    case,
                    rate: args.rate,
                    warm_up: std::time::Duration::from_secs(args.warm_up),
                };
                let round = round::run(contender, &settings)
                    .await
                    .with_context(|| format!("{name}, {case}, round {number} of {}", args.rounds))?;
                eprintln!("{case} {number}/{} {round}", args.rounds);
                rounds.push(round);
            }
        }
    }

    let summary = summary::Summary::of(args.from, args.to, rounds);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        println!("{summary}");
    }
    Ok(())
}
