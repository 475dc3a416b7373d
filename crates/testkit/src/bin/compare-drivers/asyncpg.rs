//! asyncpg's own tests, which its source distribution has. Owns which of them can run against a server that is there
//! already; refuses to know what they mean.

use std::time::Duration;

use anyhow::{Result, ensure};
use pgteal_testkit::drivers;

use crate::Outcomes;
use crate::place::Place;
use crate::suite::{led, told};

/// They take about a minute.
const LIMIT: Duration = Duration::from_secs(900);

pub(crate) async fn run(place: &Place, only: &[String]) -> Result<Outcomes> {
    let suite = drivers().join("asyncpg-suite");
    ensure!(suite.exists(), "{} is missing: run `cargo xtask drivers`", suite.display());
    let program = led("python3", "asyncpg_suite.py", place).arg(&suite).args(only);
    let program = program.env("PYTHONPATH", drivers().join("python")).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = program.run(LIMIT).await?;
    ensure!(output.status.success(), "the suite ended with {}:\n{}", output.status, output.stderr);
    Ok(told(&output))
}
