//! Passwords: where they are looked for, and that they are never shown.

use std::path::Path;

use super::{ConfigError, Env};

/// A password. Prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself: only to hand it to a connection.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// The password for one side: the variable, then the file. `None` leaves it to `.pgpass`.
///
/// # Errors
/// The file cannot be read, is empty, or others may read it.
pub fn password(env: &Env, variable: &str, file: Option<&Path>) -> Result<Option<Secret>, ConfigError> {
    if let Some(value) = env.get(variable) {
        return Ok(Some(Secret::new(value)));
    }
    let Some(path) = file else { return Ok(None) };
    let wrong = |reason: String| ConfigError::PasswordFile { path: path.into(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let mode =
        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?);
    if mode & 0o077 != 0 {
        return Err(wrong(format!("mode {:03o} lets others read it; it must be 600", mode & 0o777)));
    }
    match text.lines().next().map(str::trim_end).filter(|line| !line.is_empty()) {
        Some(line) => Ok(Some(Secret::new(line))),
        None => Err(wrong("its first line is empty".into())),
    }
}
