//! What cargo knows of this workspace: its crates, who depends on whom, where builds go. Owns the reading of
//! `cargo metadata`. Refuses to judge.

use crate::shell;
use anyhow::{Context, Result};
use serde_json::Value;
use std::path::PathBuf;

/// The workspace at one moment.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Its crates, by name.
    pub(crate) crates: Vec<Crate>,
    /// Where cargo puts what it builds.
    pub(crate) target: PathBuf,
}

/// One crate of the workspace.
#[derive(Debug)]
pub(crate) struct Crate {
    pub(crate) name: String,
    /// The directory with its `Cargo.toml`.
    pub(crate) dir: PathBuf,
    /// Its dependencies on other crates of the workspace.
    pub(crate) arrows: Vec<Arrow>,
}

/// A dependency on another crate of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrow {
    pub(crate) to: String,
    /// Under `[dev-dependencies]`.
    pub(crate) dev: bool,
}

/// Asks cargo.
pub(crate) fn read() -> Result<Workspace> {
    let text =
        shell::read(shell::cargo().args(["metadata", "--no-deps", "--format-version", "1", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let target = PathBuf::from(string(&metadata["target_directory"])?);
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let crates = packages.iter().map(read_crate).collect::<Result<Vec<_>>>()?;
    Ok(Workspace { crates, target })
}

fn read_crate(package: &Value) -> Result<Crate> {
    let manifest = PathBuf::from(string(&package["manifest_path"])?);
    let dir = manifest.parent().context("a manifest has no directory")?.to_path_buf();
    let dependencies = package["dependencies"].as_array().context("a package names no dependencies")?;
    // Only a dependency inside the workspace has a path.
    let inside = dependencies.iter().filter(|dependency| dependency["path"].is_string());
    let arrow = |dependency: &Value| {
        Ok(Arrow { to: string(&dependency["name"])?, dev: dependency["kind"].as_str() == Some("dev") })
    };
    Ok(Crate { name: string(&package["name"])?, dir, arrows: inside.map(arrow).collect::<Result<_>>()? })
}

fn string(value: &Value) -> Result<String> {
    Ok(value.as_str().with_context(|| format!("cargo metadata: {value} is not a string"))?.to_owned())
}
