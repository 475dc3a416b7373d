//! Whether the documents keep up with the crates. What is generated from code (the schema of `pgteal.toml`) is held to
//! it by a test of the crate that generates it; here is what only the repository as a whole can tell.

use crate::workspace::Crate;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// The documents a stranger looks for.
const DOCUMENTS: [&str; 5] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"];

pub(super) fn check(root: &Path, crates: &[Crate]) -> Result<Vec<String>> {
    let missing = DOCUMENTS.iter().filter(|name| !root.join(name).is_file());
    let mut broken: Vec<String> = missing.map(|name| format!("{name} is missing")).collect();
    let file = root.join("ARCHITECTURE.md");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    broken.extend(unnamed(&text, crates));
    Ok(broken)
}

/// Crates that the table of rooms does not have: each has a row that begins with its directory.
fn unnamed(architecture: &str, crates: &[Crate]) -> Vec<String> {
    let room = |one: &Crate| one.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let missing = crates.iter().map(room).filter(|room| {
        let row = format!("| `{room}` |");
        !architecture.lines().any(|line| line.starts_with(&row))
    });
    missing.map(|room| format!("ARCHITECTURE.md: no row for the room `{room}`")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_without_a_row_is_named() {
        let one = |dir: &str| Crate { name: dir.into(), dir: dir.into(), arrows: Vec::new() };
        let crates = [one("crates/wire"), one("crates/saga")];
        let text = "the `saga` room\n| `wire` | bytes | sockets |\n";
        assert_eq!(unnamed(text, &crates), ["ARCHITECTURE.md: no row for the room `saga`"]);
    }
}
