//! `cargo xtask fuzz`: the targets of `fuzz/`, instrumented and run by libFuzzer, two at once. Owns how they are built: by the
//! stable compiler, which has the coverage but no sanitizers. Refuses to know what the targets check.

use crate::{debian, shell};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// What `cargo fuzz` passes, as far as it needs no nightly compiler.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// Runs the named targets, or all, for so many seconds each; fails at the first input that one of them does not bear.
pub(crate) fn run(seconds: u32, keep: bool, targets: &[String]) -> Result<()> {
    let place = shell::root().join("fuzz");
    let known = corpora(&place)?;
    if let Some(unknown) = targets.iter().find(|target| !known.contains(target)) {
        bail!("no target {unknown}: there are {}", known.join(", "));
    }
    let chosen = if targets.is_empty() { &known[..] } else { targets };
    if !shell::on_path("c++") {
        debian::install(&["g++"], "libFuzzer is written in C++")?;
    }
    let mut cargo = shell::cargo();
    cargo.current_dir(&place).args(["build", "--release", "--locked", "--target", TRIPLE]);
    // The compiler's flags for build scripts and macros stay as they are: those are for this machine, not for the target.
    shell::run(cargo.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", place.join("target")))?;
    for two in chosen.chunks(2) {
        let started: Vec<_> =
            two.iter().map(|target| start(&place, target, seconds)).collect::<Result<_>>()?;
        for (target, mut child) in two.iter().zip(started) {
            let status = child.wait()?;
            let log = log(&place, target);
            let told = fs::read_to_string(&log).unwrap_or_default();
            ensure!(
                status.success(),
                "{target}: {status}; {} has this to say:\n{}",
                log.display(),
                end(&told, 40)
            );
            eprintln!("{target}: {}", end(&told, 1));
        }
    }
    if keep {
        chosen.iter().try_for_each(|target| merge(&place, target))?;
    }
    Ok(())
}

/// Each target has its corpus.
fn corpora(place: &Path) -> Result<Vec<String>> {
    let all = fs::read_dir(place.join("corpus")).context("fuzz/corpus")?;
    let mut names: Vec<String> = all.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn program(place: &Path, target: &str) -> Command {
    let mut program = Command::new(place.join("target").join(TRIPLE).join("release/pgteal-fuzz"));
    program.env("PGTEAL_FUZZ_TARGET", target).stdin(Stdio::null());
    program
}

fn found(place: &Path, target: &str) -> PathBuf {
    place.join("target/found").join(target)
}

fn log(place: &Path, target: &str) -> PathBuf {
    place.join("target").join(format!("{target}.log"))
}

fn start(place: &Path, target: &str, seconds: u32) -> Result<std::process::Child> {
    let found = found(place, target);
    fs::create_dir_all(&found)?;
    let mut program = program(place, target);
    // What is found goes to the first directory; the committed corpus is only read.
    program.arg(&found).arg(place.join("corpus").join(target));
    program.arg(format!("-max_total_time={seconds}"));
    program.args(["-max_len=2048", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=0"]);
    program.arg(format!("-artifact_prefix={}/{target}-", place.join("target").display()));
    let log = fs::File::create(log(place, target))?;
    program.stdout(Stdio::null()).stderr(log).spawn().with_context(|| format!("cannot start {target}"))
}

/// Adds to the corpus what reaches more of the code than the corpus does.
fn merge(place: &Path, target: &str) -> Result<()> {
    let mut program = program(place, target);
    program.args(["-merge=1", "-max_len=2048"]).arg(place.join("corpus").join(target));
    shell::read(program.arg(found(place, target))).map(drop)
}

fn end(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
