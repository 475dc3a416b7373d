//! `pgteal demo`: the whole story on this machine.

use std::time::Duration;

use pgteal_core::providers::Programs;
use pgteal_saga::Stop;

use super::Context;
use crate::demo::place::Place;
use crate::demo::story::{Findings, Stage, Wish};
use crate::errors::Failure;
use crate::exit::Exit;
use crate::run::signals;
use crate::servers::{self, Distribution};
use crate::ui::Style;

/// How long the story may take to come to rest after Ctrl-C.
const REST_BOUND: Duration = Duration::from_secs(20);

/// Options of `demo`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pgteal demo\n  pgteal demo --from 16 --to 18 --clients 32 --rate 1000\n  \
    pgteal demo --json\n\n\
    Everything is made below the temporary directory and removed at the end, also after Ctrl-C.\n\n\
    --json prints one object: from, to, client_errors, acknowledged, lost, duplicated, connections_dropped, sessions,\n\
    mismatched_tables, and for switch and back each pause_ms (the longest wait of any client), hold_ms, drain_ms,\n\
    fence_ms, marker_ms, sequences_ms, repoint_ms, release_ms. Exit code 8: a claim does not hold."
)]
pub struct Args {
    /// Major version of blue.
    #[arg(long, value_name = "MAJOR", default_value_t = 15, value_parser = clap::value_parser!(u32).range(14..))]
    from: u32,
    /// Major version of green.
    #[arg(long, value_name = "MAJOR", default_value_t = 18, value_parser = clap::value_parser!(u32).range(14..))]
    to: u32,
    /// Client sessions.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=200))]
    clients: u32,
    /// Transactions a second of all sessions together.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Seconds that clients write in each of the three acts: on blue, on green, on blue again.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Orders in the shop before it begins.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rows: u64,
    /// Leave everything running at the end, and say how to look at it and how to stop it.
    #[arg(long)]
    keep: bool,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let find = |major: u32| -> Result<Distribution, Failure> {
        let found = servers::find(&context.env, major);
        found.ok_or_else(|| Failure::NoDistribution { major, looked: servers::roots(&context.env) })
    };
    let wish = Wish {
        from: find(args.from)?,
        to: find(args.to)?,
        clients: args.clients,
        rate: f64::from(args.rate),
        act: Duration::from_secs(args.seconds),
        rows: args.rows,
    };
    if wish.from.major > wish.to.major {
        let reason = format!("{} is older than {}", wish.to.major, wish.from.major);
        return Err(Failure::Argument { argument: "--to".into(), reason });
    }
    crate::proxy_file::program(&context.env)?;
    let owner = Programs::new(wish.from.bindir.clone(), None)?.owner()?;
    let stop = signals::listen(&context.ui, "ending the demo; its clusters are removed")?;
    let mut stage = Stage::new(Place::make(&owner, args.keep)?, stop.clone());
    // With --json the answer is one object: what the runs say on the way is not part of it.
    let ui = if context.ui.json() { context.ui.quiet() } else { context.ui.clone() };
    let inner = Context { ui, stop: Some(stop.clone()), ..context.clone() };
    // The story hears the wish to stop by itself and comes to rest; only if it does not, it is cut short.
    let told = tokio::select! {
        told = stage.tell(&inner, &wish) => told,
        () = overdue(&stop) => Err(Failure::Interrupted),
    };
    if args.keep && told.is_ok() {
        stage.keep(context);
    } else {
        stage.clear().await;
    }
    answer(context, &told?)
}

async fn overdue(stop: &Stop) {
    stop.requested().await;
    tokio::time::sleep(REST_BOUND).await;
}

fn answer(context: &Context, findings: &Findings) -> Result<Exit, Failure> {
    let ui = &context.ui;
    ui.object(&findings.report);
    let failed: Vec<_> = findings.claims.iter().filter(|claim| !claim.holds).collect();
    let Some(first) = failed.first() else {
        ui.line(format!(
            "\n{} all {} claims hold: switched in {:.1} ms, back in {:.1} ms as clients saw it",
            ui.paint(Style::Good, "done:"),
            findings.claims.len(),
            findings.report.switch.pause_ms,
            findings.report.back.pause_ms
        ));
        return Ok(Exit::Done);
    };
    let failure = Failure::Claims {
        failed: failed.len(),
        claims: findings.claims.len(),
        first: format!("{} ({})", first.text, first.found),
    };
    if ui.json() {
        // One object only: the report says what was found, the exit code that it is not what was claimed.
        for claim in failed {
            ui.note(format!("does not hold: {} ({})", claim.text, claim.found));
        }
        return Ok(failure.advice().exit);
    }
    Err(failure)
}
