//! `bench-proxy`: what it costs to stand between clients and server, by whom. Owns the order of cases and what is
//! printed; refuses to know how anybody relays.
//!
//! Everybody leads to the same server and gets the same clients; they take turns in each round, so that only ratios
//! within one run are compared.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod arena;
mod case;
mod contender;
mod copy;
mod fake_server;
mod frames;
mod haproxy;
mod idle;
mod meter;
mod null_relay;
mod pgbench;
mod pgbouncer;
mod pgteal;
mod rounds;
mod sample;
mod summary;

use anyhow::Result;
use clap::{Parser, Subcommand};

use arena::Arena;
use case::{Case, Work};
use contender::Contender;
use rounds::Plan;
use summary::{Setting, Summary};

/// Cost of a proxy: pgteal-proxy, PgBouncer, HAProxy and a loop that only moves bytes, same server, taking turns.
#[derive(Debug, Parser)]
#[command(name = "bench-proxy", args_conflicts_with_subcommands = true)]
struct Args {
    /// Rounds of each contender in each cell.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Cases to run; all if none is given.
    #[arg(long = "case", value_enum)]
    cases: Vec<Case>,
    /// Contenders to run; all if none is given. Ratios need pgbouncer-session, null-relay and direct.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Contender>,
    /// Only cells whose name contains this, for example "simple, 8".
    #[arg(long)]
    cell: Option<String>,
    /// Seconds of each cell with pgbench.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Idle sessions of the idle case; fewer if the limit of descriptors has no room for two each.
    #[arg(long, default_value_t = 10_000)]
    clients: usize,
    /// How contenders reach the server. Clients always come over TCP.
    #[arg(long, value_enum, default_value_t = Way::Tcp)]
    upstream: Way,
    /// Print one JSON object instead of the tables.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    child: Option<Child>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    Tcp,
    Unix,
}

/// What this program runs as its own child.
#[derive(Debug, Subcommand)]
enum Child {
    #[command(hide = true)]
    NullRelay(null_relay::Args),
    #[command(hide = true)]
    FakeServer(fake_server::Args),
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    match &args.child {
        Some(Child::NullRelay(relay)) => null_relay::run(relay),
        Some(Child::FakeServer(server)) => {
            let mut alone = tokio::runtime::Builder::new_current_thread();
            Ok(alone.enable_all().build()?.block_on(fake_server::run(server))?)
        }
        None => runtime.worker_threads(2).enable_all().build()?.block_on(bench(args)),
    }
}

async fn bench(args: Args) -> Result<()> {
    let cases = if args.cases.is_empty() { Case::ALL.to_vec() } else { args.cases.clone() };
    let mut contenders = Contender::ALL.to_vec();
    contenders.retain(|contender| args.only.is_empty() || args.only.contains(contender));
    let idle = idle::make_room(args.clients)?;
    let socket = args.upstream == Way::Unix;
    let Args { rounds, seconds, cell, .. } = args;
    let arena = Arena::build().await?;
    let plan = Plan { arena, contenders, rounds, seconds, idle, socket, cell };
    let mut samples = Vec::new();
    for case in &cases {
        samples.extend(plan.run(*case).await?);
    }
    anyhow::ensure!(!samples.is_empty(), "there is no such cell of these contenders");
    sample::add_added(&mut samples);

    let summary = Summary::of(setting(&plan, &cases, args.clients), samples);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        print!("{summary}");
    }
    Ok(())
}

fn setting(plan: &Plan, cases: &[Case], wanted: usize) -> Setting {
    let mut all: Vec<String> = cases.iter().flat_map(|case| notes(*case, plan, wanted)).collect();
    if cfg!(debug_assertions) {
        all.insert(
            0,
            "built without optimization: the figures say nothing (cargo xtask bench builds for release)"
                .into(),
        );
    }
    let told = plan.contenders.iter().filter_map(|contender| Some((*contender, contender.told()?)));
    Setting {
        server: plan.arena.server.distribution().version().to_owned(),
        rounds: plan.rounds,
        seconds: plan.seconds,
        upstream: if plan.socket { "a Unix socket" } else { "TCP" },
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        contenders: told.collect(),
        notes: all,
    }
}

/// What one has to know to read the figures of a case.
fn notes(case: Case, plan: &Plan, wanted: usize) -> Vec<String> {
    let mut notes: Vec<String> = match case {
        Case::Query => vec![format!("query: {} transactions before the clock starts", rounds::WARM_UP)],
        Case::Copy => vec!["copy: psql writes to /dev/null, all data is in the server's memory".into()],
        Case::Connect => vec![
            "connect: SCRAM-SHA-256 with 4096 iterations; pgbench stretches the password anew for each connection".into(),
        ],
        Case::Idle => vec![
            "idle: in front of a stand-in that answers as a server of version 18 does; each session has said one query; \
             memory is Pss, after all logins less before the first"
                .into(),
        ],
    };
    if case == Case::Idle && plan.idle < wanted {
        notes.push(format!(
            "idle: {} sessions, not {wanted}: the limit of descriptors has no room",
            plan.idle
        ));
    }
    for contender in &plan.contenders {
        let mut works = case.cells(plan.idle).into_iter().map(|cell| cell.work);
        if let Some(why) = works.find_map(|work: Work| work.leaves_out(*contender)) {
            notes.push(format!("{}: without {contender} where {why}", case.name()));
        }
    }
    notes
}
