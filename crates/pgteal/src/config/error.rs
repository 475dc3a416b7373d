//! What can be wrong with a configuration. States facts; advice is given by `errors.rs`.

use std::path::PathBuf;

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// There is no file at the path.
    #[error("there is no configuration file {}", path.display())]
    Missing {
        /// The path looked at.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The path looked at.
        path: PathBuf,
        /// The system's message.
        reason: String,
    },
    /// Not TOML, or a value of the wrong type.
    #[error("{}, line {line}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// The parser's message.
        reason: String,
    },
    /// A key that no table has.
    #[error("unknown key `{key}` in {table}, line {line}{}", did_you_mean(nearest.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key as written.
        key: String,
        /// `[switch]`, or `the top level`.
        table: String,
        /// Line, counted from 1.
        line: usize,
        /// The known key that is nearest in spelling.
        nearest: Option<String>,
    },
    /// A key that must be there and is not.
    #[error("`{key}` is missing in {table}")]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// `[switch]`, or `the top level`.
        table: String,
    },
    /// A value outside its bounds, or one that contradicts another.
    #[error("{origin}: `{key}` {reason}")]
    Value {
        /// `pgteal.toml, line 7`, an environment variable or a flag.
        origin: String,
        /// `switch.deadline_ms`.
        key: String,
        /// `is 50, which is outside 100 .. 600000`.
        reason: String,
    },
    /// A password stands where everybody can read it.
    #[error("{origin}: `{key}` contains a password")]
    PasswordInline {
        /// `pgteal.toml, line 7`, or an environment variable.
        origin: String,
        /// `blue.conninfo`.
        key: String,
        /// The environment variable that takes it.
        env: String,
    },
    /// A password file cannot be used.
    #[error("password file {}: {reason}", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|key| format!("; did you mean `{key}`?")).unwrap_or_default()
}
