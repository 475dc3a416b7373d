//! Owns who looks up verifiers on a side: the keys for both sides, and over them those of the side. Reads no password.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::AuthConfig;
use crate::route::Side;

/// What one side has of its own: `[auth.blue]` or `[auth.green]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// The role that looks up verifiers there. Another role than that for both sides has a password of its own, or none.
    pub service_user: Option<String>,
    /// The database it connects to.
    pub service_database: Option<String>,
    /// Environment variable that holds its password.
    pub service_password_env: Option<String>,
    /// File that holds its password (first line).
    pub service_password_file: Option<PathBuf>,
}

/// Who looks up verifiers on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service<'a> {
    /// The role.
    pub user: &'a str,
    /// Its database.
    pub database: &'a str,
    /// Environment variable that holds its password.
    pub password_env: Option<&'a str>,
    /// File that holds its password, when no variable does.
    pub password_file: Option<&'a Path>,
}

impl AuthConfig {
    /// Who looks up verifiers on this side.
    #[must_use]
    pub fn service(&self, side: Side) -> Service<'_> {
        let own = match side {
            Side::Blue => &self.blue,
            Side::Green => &self.green,
        };
        let user = own.service_user.as_ref().unwrap_or(&self.service_user);
        let mut password = (&own.service_password_env, &own.service_password_file);
        // A password is its role's: it is not shown to a server for another one.
        if password == (&None, &None) && *user == self.service_user {
            password = (&self.service_password_env, &self.service_password_file);
        }
        Service {
            user,
            database: own.service_database.as_ref().unwrap_or(&self.service_database),
            password_env: password.0.as_deref(),
            password_file: password.1.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_a_side_has_of_its_own_wins() {
        let both = "service_user = 's'\nservice_database = 'd'\nservice_password_env = 'BOTH'\n";
        for (green, user, database, env, file) in [
            ("", "s", "d", Some("BOTH"), None),
            ("service_database = 'e'", "s", "e", Some("BOTH"), None),
            ("service_password_env = 'GREEN'", "s", "d", Some("GREEN"), None),
            ("service_password_file = '/g'", "s", "d", None, Some("/g")),
            ("service_user = 's'", "s", "d", Some("BOTH"), None),
            ("service_user = 'g'", "g", "d", None, None),
            ("service_user = 'g'\nservice_password_env = 'GREEN'", "g", "d", Some("GREEN"), None),
        ] {
            let config: AuthConfig = toml::from_str(&format!("{both}[green]\n{green}\n")).unwrap();
            let file = file.map(Path::new);
            let expected = Service { user, database, password_env: env, password_file: file };
            assert_eq!(config.service(Side::Green), expected, "{green}");
            let expected =
                Service { user: "s", database: "d", password_env: Some("BOTH"), password_file: None };
            assert_eq!(config.service(Side::Blue), expected, "{green}");
        }
    }
}
