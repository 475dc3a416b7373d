//! Advice about the configuration.

use super::{Advice, UNTOUCHED};
use crate::config::ConfigError;
use crate::exit::Exit;

pub(super) fn advise(error: &ConfigError, what: String) -> Advice {
    let (code, object, next) = match error {
        ConfigError::Missing { path } => (
            "config-missing",
            path.display().to_string(),
            "write one: pgteal init --blue 'postgresql://pgteal@db1/postgres'; or name it with --config FILE"
                .to_owned(),
        ),
        ConfigError::Unreadable { path, .. } => (
            "config-unreadable",
            path.display().to_string(),
            "make the file readable for the user that runs pgteal".to_owned(),
        ),
        ConfigError::Syntax { path, line, .. } => (
            "config-syntax",
            format!("{}:{line}", path.display()),
            "correct the line; pgteal config schema prints every key with its type".to_owned(),
        ),
        ConfigError::UnknownKey { path, line, .. } => (
            "config-unknown-key",
            format!("{}:{line}", path.display()),
            "correct or remove the key; pgteal config schema prints all that are known".to_owned(),
        ),
        ConfigError::MissingKey { path, key, table } => (
            "config-missing-key",
            path.display().to_string(),
            format!("add `{key} = ...` to {table}; pgteal config schema says what it takes"),
        ),
        ConfigError::Value { key, .. } => (
            "config-value",
            key.clone(),
            "correct the value; pgteal config schema prints the bounds".to_owned(),
        ),
        ConfigError::PasswordInline { key, env, .. } => (
            "config-password",
            key.clone(),
            format!("take the password out and give it by {env}, by password_file, or by .pgpass"),
        ),
        ConfigError::PasswordFile { path, .. } => (
            "password-file",
            path.display().to_string(),
            "put the password into its first line, then: chmod 600 FILE".to_owned(),
        ),
    };
    Advice { code, what, object: Some(object), data: UNTOUCHED.into(), next, exit: Exit::Usage }
}
