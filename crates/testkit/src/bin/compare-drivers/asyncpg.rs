//! asyncpg's own tests, which its source distribution has. Owns which of them can run against a server that is there
//! already; refuses to know what they mean.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use pgteal_testkit::{Program, drivers};

use crate::Outcomes;
use crate::place::Place;

/// They take about a minute.
const LIMIT: Duration = Duration::from_secs(900);

/// Before each line that is ours and not a test's.
const MARK: &str = "@@\t";

pub(crate) async fn run(place: &Place, only: &[String]) -> Result<Outcomes> {
    let suite = drivers().join("asyncpg-suite");
    ensure!(suite.exists(), "{} is missing: run `cargo xtask drivers`", suite.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers/asyncpg_suite.py");
    let program = Program::file("python3").arg(script).arg(&suite).args(only);
    let program = program.env("PYTHONPATH", drivers().join("python")).env("PYTHONDONTWRITEBYTECODE", "1");
    let program = program.env("PGHOST", "127.0.0.1").env("PGPORT", place.port().to_string());
    let program = program.env("PGUSER", "postgres").env("PGDATABASE", "postgres").env("LC_ALL", "C.UTF-8");
    let output = program.run(LIMIT).await?;
    ensure!(output.status.success(), "the suite ended with {}:\n{}", output.status, output.stderr);
    let lines = output.stdout.lines().filter_map(|line| line.strip_prefix(MARK)?.split_once('\t'));
    Ok(lines.map(|(name, outcome)| (name.to_owned(), outcome.to_owned())).collect())
}
