//! `pgteal runs`: the runs in the journal, or one of them with its timeline.

use pgteal_saga::{RunId, stored};
use serde_json::{Value, json};

use super::Context;
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::table::table;
use crate::render::timeline;
use crate::run::{Desk, desk, journey};

/// Options of `runs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  pgteal runs\n  pgteal runs switch-k3f7a2qx")]
pub struct Args {
    /// Show this run with its timeline.
    #[arg(value_name = "RUN")]
    run: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<Exit, Failure> {
    let desk = Desk::to_look(context.config()?).await?;
    match (args.run, desk) {
        (Some(text), desk) => {
            let run = RunId::parse(&text)
                .map_err(|error| Failure::Argument { argument: "RUN".into(), reason: error.to_string() })?;
            match desk {
                Some(desk) => one(context, &desk, &run).await,
                None => {
                    Err(Failure::Argument { argument: "RUN".into(), reason: "there was no run yet".into() })
                }
            }
        }
        (None, desk) => {
            all(context, desk.as_ref());
            Ok(Exit::Done)
        }
    }
}

fn all(context: &Context, desk: Option<&Desk>) {
    let entries = desk.map(|desk| desk.entries.as_slice()).unwrap_or_default();
    if entries.is_empty() {
        context.ui.line("there was no run yet");
    } else {
        let rows = entries.iter().map(|entry| {
            vec![
                entry.run.to_string(),
                entry.deployment.to_string(),
                entry.created_at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
                entry.state.clone(),
            ]
        });
        context.ui.line(table(&["run", "deployment", "created", "state"], &[], rows));
    }
    context.ui.object(&json!({ "runs": entries }));
}

async fn one(context: &Context, desk: &Desk, run: &RunId) -> Result<Exit, Failure> {
    let (state, events) = desk.load(run).await?;
    let titles = journey::titles(&desk::registry_of(state.plan())?);
    let laps = timeline::laps(&events, None);
    let ui = &context.ui;
    ui.line(format!("{run}: {}\n", state.describe()));
    ui.line(timeline::draw(&laps, &titles));
    let stored: Vec<Value> = events
        .iter()
        .filter_map(|event| stored::encode(event).ok())
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect();
    ui.object(&json!({
        "run": run.to_string(),
        "state": state.describe(),
        "timeline": timeline::value(&laps),
        "events": stored,
    }));
    Ok(Exit::Done)
}
