//! How source files look: they say what they own, have a size one can read, and a name that says something.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The most lines of a file, without its tests.
const LINES: usize = 500;

/// Names under which everything ends up that nobody has thought about.
const NAMES: [&str; 4] = ["utils", "common", "helpers", "types"];

pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for dir in ["crates", "xtask"] {
        collect(&root.join(dir), &mut files)?;
    }
    let mut broken = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let shown = file.strip_prefix(root).unwrap_or(&file);
        broken.extend(judge(shown, &text));
    }
    Ok(broken)
}

fn judge(file: &Path, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let shown = file.display();
    let names = file.components().map(|part| Path::new(part.as_os_str()));
    if names.filter_map(Path::file_stem).any(|stem| NAMES.iter().any(|name| stem == *name)) {
        broken.push(format!("{shown}: a name that says nothing"));
    }
    if is_test(file) {
        return broken;
    }
    if !text.starts_with("//!") {
        broken.push(format!("{shown}: must open with //! and say what it owns and what it refuses to know"));
    }
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
    if lines > LINES {
        broken.push(format!("{shown}: {lines} lines without its tests, {LINES} at most"));
    }
    broken
}

/// Whether all of a file is test: below `tests/`, or named as a module of tests is.
fn is_test(file: &Path) -> bool {
    let below = file.parent().is_some_and(|dir| dir.components().any(|part| part.as_os_str() == "tests"));
    below
        || file.file_stem().is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_tests"))
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_seen() {
        let long = format!("//! Long.\n{}", "x\n".repeat(500));
        let tested = format!(
            "//! Long tests.\n{}\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            "x\n".repeat(400),
            "x\n".repeat(400)
        );
        let cases = [
            ("crates/a/src/good.rs", "//! Good.\n", 0),
            ("crates/a/src/mute.rs", "fn main() {}\n", 1),
            ("crates/a/src/long.rs", long.as_str(), 1),
            ("crates/a/src/tested.rs", tested.as_str(), 0),
            ("crates/a/src/gate/tests.rs", "fn main() {}\n", 0),
            ("crates/a/tests/mute.rs", "fn main() {}\n", 0),
            ("crates/a/tests/common/mod.rs", "fn main() {}\n", 1),
            ("crates/a/src/utils.rs", "//! Everything.\n", 1),
            ("crates/a/src/helpers/good.rs", "//! Everything.\n", 1),
            ("crates/a/src/types.rs", "", 2),
        ];
        for (file, text, count) in cases {
            assert_eq!(judge(Path::new(file), text).len(), count, "{file}");
        }
    }
}
