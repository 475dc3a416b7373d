//! `cargo xtask tidy`: the rules of the house that a machine can check. Owns the collecting of what breaks them; each
//! kind of rule has its file. Refuses to repair anything.

mod arrows;
mod documents;
mod sources;

use crate::{shell, workspace};
use anyhow::{Result, bail};

/// Checks all rules and names everything that breaks one.
pub(crate) fn run() -> Result<()> {
    let root = shell::root();
    let workspace = workspace::read()?;
    let mut broken = arrows::check(&workspace.crates);
    broken.extend(sources::check(&root)?);
    broken.extend(documents::check(&root, &workspace.crates)?);
    for line in &broken {
        eprintln!("{line}");
    }
    if !broken.is_empty() {
        bail!("{} of the house's rules broken", broken.len());
    }
    Ok(())
}
