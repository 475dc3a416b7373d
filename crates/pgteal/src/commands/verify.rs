//! `pgteal verify`: compares every table of the two sides by row digests, while clients write.

use pgteal_core::compare;
use pgteal_core::deployment::Direction;
use pgteal_core::progress::Tick;
use pgteal_core::verify::{Outcome, Report, TableReport};
use serde_json::json;

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::table::table;
use crate::run::{Desk, Stage, place};
use crate::ui::Style;
use crate::units;

/// Options of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal verify\n\n\
    Exit code 0: every row is on both sides, equal. 3: some are not, or were never quiet long enough to compare.")]
pub struct Args {}

pub(super) async fn run(_args: Args, context: &Context) -> Result<Exit, Failure> {
    let Some(desk) = Desk::to_look(context.config()?).await? else {
        let why = "there is no deployment yet".to_owned();
        return Err(Failure::NotNow {
            command: "pgteal verify",
            why,
            next: vec!["pgteal plan", "pgteal up"],
        });
    };
    let report = compare(context, &desk).await?;
    show(context, &report);
    let (different, unsettled) = (report.mismatched().count(), report.unsettled().count());
    context.ui.object(&json!({
        "equal": report.is_equal(),
        "rows": report.rows(),
        "mismatched_tables": different,
        "unsettled_tables": unsettled,
        "tables": report.tables,
    }));
    match report.mismatched().chain(report.unsettled()).next() {
        None => {
            context.ui.line(format!("\n{} every table is equal", context.ui.paint(Style::Good, "done:")));
            Ok(Exit::Done)
        }
        Some(_) if context.ui.json() => Ok(Exit::Blocked),
        Some(first) => Err(Failure::Mismatch { count: different + unsettled, first: name(first) }),
    }
}

/// Compares the active side with the one that follows it.
pub(crate) async fn compare(context: &Context, desk: &Desk) -> Result<Report, Failure> {
    const COMMAND: &str = "pgteal verify";
    match desk.standing.stage {
        Stage::InStep | Stage::Switched => {}
        _ => return Err(desk.not_now(COMMAND, "no side follows the other".into())),
    }
    let (id, databases) = desk.databases(COMMAND).await?;
    let world = place::world(&desk.loaded, &context.env, &id, databases, "verify", false).await?;
    let active = desk.standing.active;
    let direction = Direction { from: active, to: active.other() };
    let terminal = context.ui.terminal();
    let bar = if terminal { indicatif::ProgressBar::new(0) } else { indicatif::ProgressBar::hidden() };
    if let Ok(style) = indicatif::ProgressStyle::with_template("  {bar:24.cyan} {pos}/{len} tables {msg}") {
        bar.set_style(style);
    }
    let tell = |tick: Tick<'_>| {
        bar.set_length(tick.total);
        bar.set_position(tick.done);
        bar.set_message(tick.name.to_owned());
    };
    let report = compare::live(&world, direction, &tell).await;
    bar.finish_and_clear();
    report.map_err(|error| Failure::Step(Box::new(error)))
}

fn name(report: &TableReport) -> String {
    format!("{}: {}", report.database, report.table)
}

fn show(context: &Context, report: &Report) {
    let rows = report.tables.iter().map(|table| {
        vec![
            table.database.clone(),
            table.table.clone(),
            table.rows.and_then(|rows| u64::try_from(rows).ok()).map_or_else(|| "-".into(), units::count),
            word(&table.outcome),
        ]
    });
    context.ui.line(table(&["database", "table", "rows", "result"], &[2], rows));
}

fn word(outcome: &Outcome) -> String {
    let rows =
        |rows: &Option<u64>| rows.map(|rows| format!(", {} rows", units::count(rows))).unwrap_or_default();
    match outcome {
        Outcome::Matched => "equal".into(),
        Outcome::Mismatched { rows: count, keys } if keys.is_empty() => format!("DIFFERENT{}", rows(count)),
        Outcome::Mismatched { rows: count, keys } => format!("DIFFERENT{}: {}", rows(count), keys.join("; ")),
        Outcome::Unsettled { rows: count } => format!("never quiet{}", rows(count)),
        Outcome::Missing { on } => format!("MISSING on {on}"),
        Outcome::Skipped { why } => format!("skipped: {why}"),
    }
}
