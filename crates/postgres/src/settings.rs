//! Configuration parameters: reading them with their source, ALTER SYSTEM, reload. Knows no parameter's meaning.

use std::time::Duration;

use serde::Serialize;

use crate::error::Result;
use crate::quote::{ident, literal};
use crate::session::Session;
use crate::wait::{self, Look};

/// One row of `pg_settings` (PostgreSQL docs, "pg_settings").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The name.
    pub name: String,
    /// The value in the parameter's unit.
    pub value: String,
    /// The unit, e.g. `8kB` or `ms`.
    pub unit: Option<String>,
    /// `bool`, `integer`, `real`, `string` or `enum`.
    pub vartype: String,
    /// When it can be changed, e.g. `postmaster`, `sighup`, `user`.
    pub context: String,
    /// Where the value comes from, e.g. `default`, `configuration file`, `database`.
    pub source: String,
    /// The file, if it comes from one and we may see it.
    pub sourcefile: Option<String>,
    /// The value if nothing set it.
    pub boot_value: Option<String>,
    /// The value of new sessions, as far as this session can tell.
    pub reset_value: Option<String>,
    /// Whether a changed value waits for a restart.
    pub pending_restart: bool,
}

/// Parameters whose value is a list of quoted names: `SET x = 'a, b'` would make one name of it.
const NAME_LISTS: [&str; 8] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
    "oauth_validator_libraries",
    "extension_control_path",
];

/// All parameters, by name.
pub async fn list(s: &Session) -> Result<Vec<Setting>> {
    let sql = "SELECT name, setting, unit, vartype, context, source, sourcefile, boot_val, reset_val, pending_restart
        FROM pg_settings ORDER BY name COLLATE \"C\"";
    let rows = s.query("reading settings", sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Setting {
                name: row.get(0)?,
                value: row.get::<Option<String>>(1)?.unwrap_or_default(),
                unit: row.get(2)?,
                vartype: row.get(3)?,
                context: row.get(4)?,
                source: row.get(5)?,
                sourcefile: row.get(6)?,
                boot_value: row.get(7)?,
                reset_value: row.get(8)?,
                pending_restart: row.get(9)?,
            })
        })
        .collect()
}

/// The value of one parameter as SHOW prints it; `None` if this version does not have it.
pub async fn show(s: &Session, name: &str) -> Result<Option<String>> {
    let doing = format!("reading setting {name}");
    s.query_one(&doing, "SELECT current_setting($1, true)", &[&name]).await?.get(0)
}

/// Writes parameters to postgresql.auto.conf; they take effect with [`reload`] or a restart.
pub async fn alter_system_set(s: &Session, settings: &[(&str, &str)]) -> Result<()> {
    for (name, value) in settings {
        let sql = format!("ALTER SYSTEM SET {} = {}", parameter(name), parameter_value(name, value));
        s.batch(&format!("setting {name} by ALTER SYSTEM"), &sql).await?;
    }
    Ok(())
}

/// Takes parameters out of postgresql.auto.conf.
pub async fn alter_system_reset(s: &Session, names: &[&str]) -> Result<()> {
    for name in names {
        let sql = format!("ALTER SYSTEM RESET {}", parameter(name));
        s.batch(&format!("resetting {name} by ALTER SYSTEM"), &sql).await?;
    }
    Ok(())
}

/// Has the server read its files again and waits until it has. Returns the parameters that wait for a restart.
pub async fn reload(s: &Session, bound: Duration) -> Result<Vec<String>> {
    let doing = "reloading the configuration";
    let loaded = "SELECT extract(epoch FROM pg_conf_load_time())::float8";
    let before: f64 = s.query_one(doing, loaded, &[]).await?.get(0)?;
    s.query_one(doing, "SELECT pg_reload_conf()", &[]).await?;
    wait::until(s, "the configuration to be read again", bound, Duration::from_millis(5), || async {
        let now: f64 = s.query_one(doing, loaded, &[]).await?.get(0)?;
        Ok(if now > before { Look::Reached(()) } else { Look::NotYet("still the old load time".to_owned()) })
    })
    .await?;
    pending_restart(s).await
}

/// The parameters whose new value waits for a restart.
pub async fn pending_restart(s: &Session) -> Result<Vec<String>> {
    let sql = "SELECT name FROM pg_settings WHERE pending_restart ORDER BY 1";
    s.query("reading settings that wait for a restart", sql, &[]).await?.iter().map(|r| r.get(0)).collect()
}

/// A parameter's name in SQL; extension parameters have two parts.
pub(crate) fn parameter(name: &str) -> String {
    name.split('.').map(ident).collect::<Vec<_>>().join(".")
}

/// A parameter's value in SQL.
pub(crate) fn parameter_value(name: &str, value: &str) -> String {
    if !NAME_LISTS.contains(&name) || value.trim().is_empty() {
        return literal(value);
    }
    let unquoted = |part: &str| part.trim().trim_matches('"').to_owned();
    value.split(',').map(|part| literal(&unquoted(part))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_names_stay_lists() {
        assert_eq!(parameter_value("shared_preload_libraries", "a, \"b\""), "'a', 'b'");
        assert_eq!(parameter_value("shared_preload_libraries", ""), "''");
        assert_eq!(parameter_value("synchronous_standby_names", "a, b"), "'a, b'");
        assert_eq!(parameter("pg_stat_statements.max"), "\"pg_stat_statements\".\"max\"");
    }
}
