//! node-postgres's own tests of a server. Owns how they are led to one; refuses to know what they mean.

use std::time::Duration;

use anyhow::{Result, ensure};
use pgteal_testkit::drivers;

use crate::Outcomes;
use crate::place::Place;
use crate::suite::{led, told};

/// Some seventy files, each of which may take a minute at worst and takes a second.
const LIMIT: Duration = Duration::from_secs(1_800);

pub(crate) async fn run(place: &Place, only: &[String]) -> Result<Outcomes> {
    let suite = drivers().join("node-postgres-suite");
    ensure!(suite.exists(), "{} is missing: run `cargo xtask drivers`", suite.display());
    let output = led("node", "node_postgres_suite.js", place).arg(&suite).args(only).run(LIMIT).await?;
    ensure!(output.status.success(), "the suite ended with {}:\n{}", output.status, output.stderr);
    Ok(told(&output))
}
