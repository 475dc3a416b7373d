//! `cargo xtask ci`: all that a change must pass, in the order in which a failure is cheapest. Refuses to skip: what is
//! missing is installed or named.

use crate::shell::{self, timed};
use crate::{deny, fuzz, product, test, tidy};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Seconds that each fuzz target has.
const FUZZED: u32 = 60;

/// What a whole run wants to find free on the disks of the clone and of the servers, in GB: it writes about 6 and 3.
const ROOM_GB: u64 = 10;

/// Runs every part, stops at the first that fails, and ends with the closing line of the tests.
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    for dir in [shell::root(), std::env::temp_dir()] {
        room(&dir)?;
    }
    timed("format", || shell::run(shell::cargo().args(["fmt", "--all", "--check"])))?;
    timed("tidy", tidy::run)?;
    timed("clippy", clippy)?;
    timed("deny", deny::run)?;
    timed("docs", docs)?;
    timed("instructions", product::gate)?;
    timed("fuzz", || fuzz::run(FUZZED, false, &[]))?;
    let line = timed("tests", || test::tests(&[]))?;
    eprintln!("==> ci: ok in {:.1} s", start.elapsed().as_secs_f64());
    println!("{line}");
    Ok(())
}

/// Refuses to begin where the servers of the tests would die of a full disk, one by one and half an hour later.
fn room(dir: &Path) -> Result<()> {
    let told = shell::read(Command::new("df").args(["--output=avail", "--block-size=1G"]).arg(dir))?;
    let free: u64 = told.lines().last().unwrap_or_default().trim().parse().context("what df told")?;
    ensure!(free >= ROOM_GB, "{} GB are free at {}, a whole run wants {ROOM_GB}", free, dir.display());
    Ok(())
}

fn clippy() -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(["clippy", "--workspace", "--all-targets", "--keep-going", "--locked"]);
    shell::run(cargo.args(["--features", "pgteal-testkit/bench", "--", "-D", "warnings"]))
}

fn docs() -> Result<()> {
    let mut cargo = shell::cargo();
    cargo
        .args(["doc", "--workspace", "--no-deps", "--keep-going", "--locked"])
        .env("RUSTDOCFLAGS", "-D warnings");
    shell::run(&mut cargo)
}
