//! psycopg's own tests. Owns how they are led to a server; refuses to know what they mean.

use std::time::Duration;

use anyhow::{Result, ensure};
use pgteal_testkit::{Scratch, drivers};

use crate::Outcomes;
use crate::place::Place;
use crate::suite::{led, told};

/// Thousands of tests, in minutes.
const LIMIT: Duration = Duration::from_secs(1_800);

pub(crate) async fn run(place: &Place, only: &[String]) -> Result<Outcomes> {
    let suite = drivers().join("psycopg-suite");
    ensure!(suite.exists(), "{} is missing: run `cargo xtask drivers`", suite.display());
    let cache = Scratch::new()?;
    let paths = std::env::join_paths([suite.join("python"), drivers().join("python")])?;
    let program = led("python3", "psycopg_suite.py", place).arg(&suite).args(only);
    let program = program.env("PYTHONPATH", paths).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = program.env("PGTEAL_SUITE_CACHE", cache.path()).run(LIMIT).await?;
    ensure!(output.status.success(), "the suite ended with {}:\n{}", output.status, output.stderr);
    Ok(told(&output))
}
