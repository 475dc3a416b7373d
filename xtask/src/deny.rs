//! Licences, bans, sources and advisories of the dependencies, judged by cargo-deny. Owns that the tool is there, in a
//! version that reads our `deny.toml`. Refuses to know the rules: they are in that file.

use crate::{pg, shell};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

const VERSION: &str = "0.20.2";

/// Checks; advisories only if their database can be reached, within a minute.
pub(crate) fn run() -> Result<()> {
    let tool = tool()?;
    shell::run(deny(&tool).args(["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]))?;
    let mut fetch = Command::new("timeout");
    fetch
        .arg("60")
        .arg(&tool)
        .args(["fetch", "db"])
        .current_dir(shell::root())
        .env("GIT_TERMINAL_PROMPT", "0");
    if shell::read(&mut fetch).is_ok() {
        return shell::run(deny(&tool).args(["check", "--disable-fetch", "advisories"]));
    }
    eprintln!("advisories not checked: their database cannot be reached from here");
    Ok(())
}

fn deny(tool: &Path) -> Command {
    let mut command = Command::new(tool);
    command.args(["--workspace", "--all-features", "--locked"]).current_dir(shell::root());
    command
}

/// A cargo-deny of our version: on the PATH, in the cache, or installed there now.
fn tool() -> Result<PathBuf> {
    let right = |tool: &Path| {
        let version = shell::read(Command::new(tool).arg("--version"));
        version.is_ok_and(|text| text.split_whitespace().any(|word| word == VERSION))
    };
    let on_path = PathBuf::from("cargo-deny");
    if right(&on_path) {
        return Ok(on_path);
    }
    let cache = pg::user_cache()?.join("pgteal/tools");
    let cached = cache.join("bin/cargo-deny");
    if !right(&cached) {
        let mut install = shell::cargo();
        // Not from the repository, whose own settings and lock file are not the tool's.
        install.current_dir("/").args(["install", "--quiet", "--locked", "--force", "--root"]).arg(&cache);
        shell::run(install.arg(format!("cargo-deny@{VERSION}")))?;
    }
    Ok(cached)
}
