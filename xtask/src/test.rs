//! `cargo xtask test`: everything the tests need, then the tests of the whole workspace, then one line with their sum.
//! Refuses to let a missing server version pass: the kit fails on it.

use crate::{debian, drivers, pg, shell, workspace};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::num::NonZero;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Debian's own build of PostgreSQL, which a test upgrades from: built otherwise than the fetched ones.
const DEBIANS_POSTGRES: &str = "/usr/lib/postgresql/15/bin/postgres";

/// The sum of all `test result:` lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// The command: arguments go to `cargo test`, of the whole workspace unless they name packages.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let line = tests(args)?;
    println!("{line}");
    Ok(())
}

/// Runs the tests and returns the closing line.
///
/// The line has the form of the test harness's own, so that whoever reads those reads this one too.
pub(crate) fn tests(args: &[String]) -> Result<String> {
    let servers = pg::ensure(&[])?;
    let drivers = drivers::ensure()?;
    if !Path::new(DEBIANS_POSTGRES).is_file() {
        debian::install_server(15, "tests upgrade from Debian's own PostgreSQL 15")?;
    }
    if !debian::has_program("haproxy") {
        debian::install(&["haproxy"], "a test puts HAProxy before the proxy")?;
    }
    let workspace = workspace::read()?;
    // Tests run the product's binaries; cargo builds them for the tests of their own crate only.
    shell::run(shell::cargo().args(["build", "--workspace", "--bins", "--locked"]))?;
    let mut cargo = shell::cargo();
    cargo.args(["test", "--locked", "--no-fail-fast"]);
    if !args.iter().any(|arg| arg.starts_with("-p") || arg.starts_with("--package")) {
        cargo.arg("--workspace");
    }
    cargo.args(args);
    cargo.env("PGTEAL_PG_DIR", servers).env("PGTEAL_REQUIRE_ALL_PG", "1");
    cargo.env("PGTEAL_DRIVERS_DIR", drivers);
    cargo.env("PGTEAL_BIN_DIR", workspace.target.join("debug"));
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        cargo.env("RUST_TEST_THREADS", threads().to_string());
    }
    let start = Instant::now();
    let (sum, succeeded) = watch(&mut cargo)?;
    let line = sum.line(succeeded, start.elapsed().as_secs_f64());
    if !succeeded {
        println!("{line}");
        bail!("`{}` failed", shell::show(&cargo));
    }
    Ok(line)
}

/// Tests at once: each may run two clusters of a dozen processes.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, NonZero::get).clamp(2, 8)
}

/// Passes the tests' output on, line by line, and sums it up.
fn watch(cargo: &mut Command) -> Result<(Sum, bool)> {
    let shown = shell::show(cargo);
    let mut child =
        cargo.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let mut sum = Sum::default();
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        // A test may print bytes that are no text.
        while lines.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            print!("{text}");
            sum.add(&text);
            line.clear();
        }
    }
    let status = child.wait()?;
    Ok((sum, status.success()))
}

impl Sum {
    fn add(&mut self, line: &str) {
        let Some(result) = line.trim().strip_prefix("test result: ") else {
            return;
        };
        let counts = result.split(['.', ';']).filter_map(|part| part.trim().split_once(' '));
        for (number, what) in counts {
            let number = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    fn line(&self, succeeded: bool, seconds: f64) -> String {
        let verdict = if succeeded { "ok" } else { "FAILED" };
        format!(
            "test result: {verdict}. {} passed; {} failed; {} ignored; 0 measured; 0 filtered out; finished in {seconds:.2}s",
            self.passed, self.failed, self.ignored
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_reads_and_writes_the_harness_line() {
        let mut sum = Sum::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.10s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s",
            "a log line with test result: 5 passed;",
        ] {
            sum.add(line);
        }
        assert_eq!(sum, Sum { passed: 4, failed: 2, ignored: 1 });
        let mut again = Sum::default();
        again.add(&sum.line(false, 1.5));
        assert_eq!(again, sum);
    }
}
