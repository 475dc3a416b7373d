//! Where the product's binaries are. Owns that they are built before a test runs them: Cargo tells a test only about
//! the binaries of its own crate. Refuses to run them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// A binary of the product that is not there.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BinaryError {
    /// `PGTEAL_BIN_DIR` promises it, and it is not there.
    #[error("no {name} in {} (PGTEAL_BIN_DIR)", dir.display())]
    Missing {
        /// The binary.
        name: String,
        /// The directory.
        dir: PathBuf,
    },
    /// It could not be built.
    #[error("{name} could not be built: {reason}")]
    NotBuilt {
        /// The binary.
        name: String,
        /// What cargo said.
        reason: String,
    },
}

/// The path of `pgteal` or `pgteal-proxy`, in `PGTEAL_BIN_DIR` (which `cargo xtask test` fills and sets), else
/// built now, once a test process, with the profile of the running test; Cargo's own lock keeps builds apart.
///
/// # Errors
/// [`BinaryError`].
pub fn binary(name: &str) -> Result<PathBuf, BinaryError> {
    static KNOWN: Mutex<Option<HashMap<String, Result<PathBuf, BinaryError>>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.get_or_insert_default().entry(name.to_owned()).or_insert_with(|| find(name)).clone()
}

fn find(name: &str) -> Result<PathBuf, BinaryError> {
    if let Some(dir) = std::env::var_os("PGTEAL_BIN_DIR").map(PathBuf::from) {
        let file = dir.join(name);
        return if file.is_file() {
            Ok(file)
        } else {
            Err(BinaryError::Missing { name: name.to_owned(), dir })
        };
    }
    let not_built = |reason: String| BinaryError::NotBuilt { name: name.to_owned(), reason };
    // target/<profile>/deps/<test>-<hash>
    let test = std::env::current_exe().map_err(|error| not_built(error.to_string()))?;
    let profile = test.ancestors().find(|dir| dir.ends_with("deps")).and_then(Path::parent);
    let profile = profile.ok_or_else(|| not_built(format!("{} is not below target/", test.display())))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet", "-p", name, "--bin", name]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    if let Some(target) = profile.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    let output = cargo.output().map_err(|error| not_built(error.to_string()))?;
    if !output.status.success() {
        return Err(not_built(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(profile.join(name))
}
