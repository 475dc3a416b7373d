//! Owns the translation of PgBouncer's configuration (its documentation, "pgbouncer.ini") into the proxy's own file.
//! Nothing is dropped silently: each setting is carried, or named with the reason why it is not. Refuses to print passwords.

mod databases;
mod ini;
mod settings;

use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::{Table, Value};

/// A file that cannot be read, or is no configuration of PgBouncer's.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct ImportError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// A setting that is not carried, or not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Section and name.
    pub setting: String,
    /// Why.
    pub reason: String,
}

/// What became of a file.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The proxy's file.
    pub text: String,
    /// What is not in it.
    pub left: Vec<Left>,
}

/// The file under way.
#[derive(Debug, Default)]
struct Draft {
    file: Table,
    left: Vec<Left>,
}

impl Draft {
    /// Sets `section.key`, or a key of the file's own.
    fn set(&mut self, section: &str, key: &str, value: impl Into<Value>) {
        let table = match section {
            "" => &mut self.file,
            _ => {
                let entry = self.file.entry(section).or_insert_with(|| Table::new().into());
                let Some(table) = entry.as_table_mut() else { return };
                table
            }
        };
        table.insert(key.to_owned(), value.into());
    }

    fn get(&self, section: &str, key: &str) -> Option<&Value> {
        self.file.get(section)?.get(key)
    }

    fn leave(&mut self, setting: impl Into<String>, reason: impl Into<String>) {
        self.left.push(Left { setting: setting.into(), reason: reason.into() });
    }
}

/// Translates a file and what it includes.
///
/// # Errors
/// [`ImportError`].
pub fn import(path: &Path) -> Result<Imported, ImportError> {
    let entries = ini::read(path)?;
    let mut draft = Draft::default();
    draft.set("", "state_file", "pgteal-proxy.state");
    for entry in entries.iter().filter(|entry| !["databases", "pgbouncer"].contains(&entry.section.as_str()))
    {
        let reason = match entry.section.as_str() {
            "users" => "the proxy has one policy for all users",
            "peers" => "the proxy has no peers",
            _ => "no section of PgBouncer's that is known here",
        };
        draft.leave(format!("[{}] {}", entry.section, entry.key), reason);
    }
    let of =
        |section: &str| entries.iter().filter(|entry| entry.section == section).cloned().collect::<Vec<_>>();
    settings::carry(&of("pgbouncer"), &mut draft);
    if !databases::carry(&of("databases"), &mut draft) {
        let reason = "[databases] names no server that the proxy could lead to".into();
        return Err(ImportError { path: path.to_owned(), reason });
    }
    let failed = |error: toml::ser::Error| ImportError { path: path.to_owned(), reason: error.to_string() };
    let mut text = format!("# Made from {}.\n", path.display());
    for Left { setting, reason } in &draft.left {
        // A comment has no control characters.
        let line = format!("# Not carried: {setting}: {reason}.");
        text.push_str(&line.replace(char::is_control, " "));
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&toml::to_string(&draft.file).map_err(failed)?);
    Ok(Imported { text, left: draft.left })
}
