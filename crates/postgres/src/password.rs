//! A password that cannot be printed by accident. Knows nothing of where it came from.

use std::fmt;

use zeroize::Zeroizing;

/// A secret. `Debug` and `Display` show stars; the memory is wiped when the last owner drops it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes ownership of a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    /// The secret itself; for handing it to a driver, a server or a child's environment, never to a log.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

impl fmt::Display for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The environment variables of this process that take passwords for pgteal (`PGTEAL_BLUE_PASSWORD` and its like): programs that
/// pgteal starts get none of these, but what is meant for them.
pub fn password_variables() -> impl Iterator<Item = std::ffi::OsString> {
    let is_ours = |name: &str| name.starts_with("PGTEAL_") && name.ends_with("_PASSWORD");
    std::env::vars_os().map(|(name, _)| name).filter(move |name| name.to_str().is_some_and(is_ours))
}
