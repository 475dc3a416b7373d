//! `pgteal plan`: classifies the upgrade, runs every check and prints the runbook. Changes nothing.

use pgteal_core::deployment::DeploymentId;
use pgteal_core::postgres::{self, Purpose, Server};
use pgteal_core::{preflight, upgrade};
use serde::Serialize;
use serde_json::json;

use super::{Context, up};
use crate::errors::Failure;
use crate::exit::Exit;
use crate::render::{findings, runbook};
use crate::run::{Desk, Stage, journey, place};
use crate::ui::Style;

/// Options of `plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgteal plan\n\n\
    Exit code 0: nothing stands in the way. 3: at least one finding blocks the upgrade.")]
pub struct Args {}

/// The kind that pgteal refuses.
const DOWNGRADE: &str = "downgrade";

/// What sort of upgrade it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Upgrade {
    from: String,
    to: String,
    kind: &'static str,
    strategy: &'static str,
    risk: &'static str,
}

impl Upgrade {
    fn named(&self) -> String {
        if self.kind == DOWNGRADE { "a downgrade".into() } else { format!("{} upgrade", self.kind) }
    }
}

pub(super) async fn run(_args: Args, context: &Context) -> Result<Exit, Failure> {
    let loaded = context.config()?;
    // Objects of the deployment that stands are ours; before there is one, none is.
    let standing = Desk::to_look(loaded.clone()).await?.map(|desk| desk.standing);
    let deployed = standing.filter(|standing| standing.stage != Stage::Nothing).and_then(|s| s.deployment);
    let id = deployed.clone().unwrap_or_else(DeploymentId::generate);
    let blue = place::blue(&loaded, &context.env)?;
    let session = blue.connect(blue.conninfo().database(), Purpose::control("plan")).await?;
    let databases = up::databases(&loaded, &context.env).await?;
    let provider = place::provider(&loaded, &context.env, id.clone()).await?;
    let green = Server::new("green", provider.conninfo().clone()).map_err(postgres::Error::from)?;
    let facts = provider.facts().await?;
    let names: Vec<String> = databases.iter().map(|database| database.name.clone()).collect();
    let settings = place::settings(&loaded.config);
    let report = preflight::run(
        &blue,
        &*provider,
        &green,
        deployed.as_ref(),
        &names,
        settings.copy_workers,
        &settings.waivers,
    )
    .await?;
    let defect = |error: &dyn std::fmt::Display| Failure::Runbook(error.to_string());
    let registry = upgrade::runbook().map_err(|error| defect(&error))?;
    let plan = upgrade::plan(&registry, &id, &databases).map_err(|error| defect(&error))?;
    let titles = journey::titles(&registry);
    let upgrade =
        classify(session.version(), facts.version, report.blockers().count(), report.findings.len());

    let ui = &context.ui;
    ui.line(format!(
        "{} {} -> {}, {}, by {}; risk {}\n",
        ui.paint(Style::Bold, "plan:"),
        upgrade.from,
        upgrade.to,
        upgrade.named(),
        upgrade.strategy,
        upgrade.risk
    ));
    ui.line(format!("databases: {}\n", names.join(", ")));
    findings::show(ui, &report);
    ui.line(format!("\n{}", runbook::draw(&plan, &titles)));
    let blockers = report.blockers().count();
    ui.object(&json!({
        "upgrade": upgrade,
        "databases": names,
        "checks": report.checks,
        "findings": report.findings,
        "blockers": blockers,
        "runbook": runbook::value(&plan, &titles),
    }));
    if blockers == 0 {
        ui.line(format!("\nnext: {}", ui.spelled("pgteal up")));
        return Ok(Exit::Done);
    }
    // The findings are the answer; with --json it is one object, and the exit code tells.
    if ui.json() { Ok(Exit::Blocked) } else { Err(Failure::Blocked { count: blockers }) }
}

fn classify(
    from: postgres::Version,
    to: Option<postgres::Version>,
    blockers: usize,
    findings: usize,
) -> Upgrade {
    let kind = match to {
        Some(to) if to.major == from.major => "minor",
        Some(to) if to.major < from.major => DOWNGRADE,
        Some(_) => "major",
        None => "unknown",
    };
    let risk = match (blockers, findings) {
        (0, 0) => "low",
        (0, _) => "low, with notices",
        _ => "blocked",
    };
    Upgrade {
        from: from.to_string(),
        to: to.map_or_else(|| "unknown".into(), |to| to.to_string()),
        kind,
        strategy: "logical replication",
        risk,
    }
}
