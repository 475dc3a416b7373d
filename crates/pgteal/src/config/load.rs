//! Layers: the file, then the environment; flags come later, by the command. Every value knows where it came from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::Table;
use toml::de::DeTable;

use super::keys::{self, Lines};
use super::schema::schema;
use super::{Config, ConfigError, bounds};

/// The file that is read when `--config` does not name another.
pub const DEFAULT_FILE: &str = "pgteal.toml";

/// A snapshot of environment variables.
#[derive(Clone, Default)]
pub struct Env(BTreeMap<String, String>);

// Values may be passwords.
impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Env {
    /// The variables of this process whose names and values are UTF-8.
    #[must_use]
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
        )
    }

    /// One variable; an empty one counts as unset.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

/// A configuration and where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values after all layers.
    pub config: Config,
    /// The file.
    pub path: PathBuf,
    origins: Origins,
}

impl Loaded {
    /// A path of the configuration, relative to the directory of the file.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        let dir = self.path.parent().unwrap_or(Path::new(""));
        let joined = dir.join(path);
        std::path::absolute(&joined).unwrap_or(joined)
    }

    /// The directory of the journal and of the proxy's files, absolute.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.resolve(&self.config.deployment.state_dir)
    }

    /// Overrides a value from a flag; call [`Loaded::check`] afterwards.
    pub fn override_with(&mut self, key: &str, flag: &str, set: impl FnOnce(&mut Config)) {
        set(&mut self.config);
        self.origins.others.insert(key.to_owned(), flag.to_owned());
    }

    /// Checks all values again.
    ///
    /// # Errors
    /// The first value outside its bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        bounds::check(&self.config, &self.origins)
    }
}

/// Where each value came from.
#[derive(Debug, Clone, Default)]
pub(super) struct Origins {
    path: PathBuf,
    lines: Lines,
    others: BTreeMap<String, String>,
}

impl Origins {
    /// `pgteal.toml, line 7`, the variable, the flag, or the file alone for a default.
    pub(super) fn of(&self, key: &str) -> String {
        let file = self.path.display();
        match (self.others.get(key), self.lines.get(key)) {
            (Some(other), _) => other.clone(),
            (None, Some(line)) => format!("{file}, line {line}"),
            (None, None) => file.to_string(),
        }
    }
}

/// Reads the file and lays the environment over it.
///
/// # Errors
/// The first thing that is wrong, with its line or its variable.
pub fn load(path: &Path, env: &Env) -> Result<Loaded, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ConfigError::Missing { path: path.into() },
        _ => ConfigError::Unreadable { path: path.into(), reason: error.to_string() },
    })?;
    parse(&text, path, env)
}

/// [`load`] without the reading.
///
/// # Errors
/// The first thing that is wrong, with its line or its variable.
pub fn parse(text: &str, path: &Path, env: &Env) -> Result<Loaded, ConfigError> {
    let schema = schema();
    let syntax = |error: toml::de::Error| ConfigError::Syntax {
        path: path.into(),
        line: keys::line_of(text, error.span().unwrap_or_default()),
        reason: error.message().trim().replace('\n', ", "),
    };
    let document = DeTable::parse(text).map_err(syntax)?;
    let (unknown, lines) = keys::walk(text, document.get_ref(), &schema);
    if let Some(first) = unknown.into_iter().min_by_key(|unknown| unknown.line) {
        let keys::Unknown { key, table, line, nearest } = first;
        return Err(ConfigError::UnknownKey { path: path.into(), key, table, line, nearest });
    }
    let mut merged: Table = toml::from_str(text).map_err(syntax)?;
    let others = overlay(&mut merged, &schema, env)?;
    if let Some((key, table)) = keys::missing(&merged, &schema) {
        return Err(ConfigError::MissingKey { path: path.into(), key, table });
    }
    let config: Config = merged.try_into().map_err(|error| {
        // The merged table has no spans; the file alone has.
        let spanned =
            toml::from_str::<Config>(text).err().filter(|direct| direct.message() == error.message());
        syntax(spanned.unwrap_or(error))
    })?;
    let origins = Origins { path: path.into(), lines, others };
    bounds::check(&config, &origins)?;
    Ok(Loaded { config, path: path.into(), origins })
}

/// Lays `PGTEAL_<TABLE>_<KEY>` over every scalar key of every table; answers which key came from which variable.
fn overlay(merged: &mut Table, schema: &Value, env: &Env) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut from = BTreeMap::new();
    for (section, keys) in keys::properties(schema, schema) {
        for (key, property) in keys::properties(schema, keys) {
            let variable = format!("PGTEAL_{section}_{key}").to_uppercase();
            let (Some(text), Some(kind)) = (env.get(&variable), keys::scalar(schema, property)) else {
                continue;
            };
            let value = match kind {
                keys::Scalar::Text => toml::Value::String(text.into()),
                keys::Scalar::Integer => {
                    toml::Value::Integer(text.trim().parse().map_err(|_| ConfigError::Value {
                        origin: variable.clone(),
                        key: format!("{section}.{key}"),
                        reason: format!("is `{text}`, which is not a whole number"),
                    })?)
                }
            };
            let table = merged.entry(section.clone()).or_insert_with(|| toml::Value::Table(Table::new()));
            if let Some(table) = table.as_table_mut() {
                table.insert(key.clone(), value);
                from.insert(format!("{section}.{key}"), variable);
            }
        }
    }
    Ok(from)
}
