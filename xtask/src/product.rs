//! `cargo xtask demo` and `cargo xtask bench`: the product as users get it, built for release. Refuses to judge what it
//! shows: its exit status is ours.

use crate::{debian, pg, shell, workspace};
use anyhow::{Context, Result, ensure};
use std::process::{Command, ExitCode};

/// The benchmark that is a gate.
const INSTRUCTIONS: &str = "instructions";

/// Runs `pgteal demo` with `args`.
pub(crate) fn demo(args: &[String]) -> Result<ExitCode> {
    let servers = pg::ensure(&[])?;
    let target = workspace::read()?.target;
    build(&["pgteal", "pgteal-proxy"])?;
    let mut pgteal = Command::new(target.join("release/pgteal"));
    pgteal.arg("demo").args(args).env("PGTEAL_PG_DIR", servers);
    pass_on(&mut pgteal)
}

/// Runs the benchmark `bench-<name>` of the test kit with `args`.
pub(crate) fn bench(name: &str, args: &[String]) -> Result<ExitCode> {
    let servers = pg::ensure(&[])?;
    let missing: Vec<&str> =
        rivals(name).iter().copied().filter(|rival| !debian::has_program(rival)).collect();
    debian::install(&missing, "the benchmark needs it")?;
    let target = workspace::read()?.target;
    // Whoever counts the proxy's instructions does not wait for the rest.
    build(if name == INSTRUCTIONS { &["pgteal-proxy"] } else { &["pgteal", "pgteal-proxy"] })?;
    let mut cargo = shell::cargo();
    cargo.args([
        "run",
        "--quiet",
        "--release",
        "--locked",
        "-p",
        "pgteal-testkit",
        "--features",
        "bench",
        "--bin",
    ]);
    cargo.arg(format!("bench-{name}")).arg("--").args(args);
    cargo.env("PGTEAL_PG_DIR", servers).env("PGTEAL_BIN_DIR", target.join("release"));
    pass_on(&mut cargo)
}

/// Fails if the proxy spends more instructions on a transaction than it may.
pub(crate) fn gate() -> Result<()> {
    ensure!(
        bench(INSTRUCTIONS, &[])? == ExitCode::SUCCESS,
        "the proxy spends more on a transaction than it may"
    );
    Ok(())
}

/// Whom a benchmark measures beside or with; Debian's packages are called as their programs.
fn rivals(name: &str) -> &'static [&'static str] {
    match name {
        "proxy" => &["pgbouncer", "haproxy"],
        INSTRUCTIONS => &["valgrind"],
        _ => &["pgbouncer"],
    }
}

fn build(packages: &[&str]) -> Result<()> {
    let mut cargo = shell::cargo();
    cargo.args(["build", "--release", "--locked", "--bins"]);
    for package in packages {
        cargo.args(["-p", package]);
    }
    shell::run(&mut cargo)
}

pub(crate) fn pass_on(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().with_context(|| format!("cannot start `{}`", shell::show(command)))?;
    // Killed by a signal: as a shell would say it, 128 and more; the exact number is the terminal's business.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::from(128), ExitCode::from))
}
