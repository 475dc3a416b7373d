//! The settings written out again: for a subscription's connection string, for the environment of PostgreSQL's own
//! programs, and for people, who never see the password.

use std::fmt;

use super::{ChannelBinding, ConnInfo, RootCert, SslMode};
use crate::quote::conninfo_value;

impl ConnInfo {
    /// A libpq connection string for `CREATE SUBSCRIPTION`, to be read by another server. **It contains the password**
    /// and must reach no log. `sslnegotiation` is left out, since libpq before 17 refuses it.
    pub fn to_libpq(&self, database: &str, application_name: &str) -> String {
        let mut parts = self.common_settings(database, application_name);
        if let Some(password) = self.password_for(database) {
            parts.push(("password", password.reveal().to_owned()));
        }
        join(&parts)
    }

    /// Environment for pg_dump, psql and the like, so that nothing secret stands on a command line. Programs are to be
    /// started without the other `PG*` variables of this process (see [`ConnInfo::TOOL_VARIABLES`]).
    pub fn env_for_tools(&self, database: &str) -> Vec<(String, String)> {
        let variable = |key: &str| {
            Some(match key {
                "dbname" => "PGDATABASE",
                "host" => "PGHOST",
                "hostaddr" => "PGHOSTADDR",
                "port" => "PGPORT",
                "user" => "PGUSER",
                "application_name" => "PGAPPNAME",
                "connect_timeout" => "PGCONNECT_TIMEOUT",
                "options" => "PGOPTIONS",
                "sslmode" => "PGSSLMODE",
                "sslrootcert" => "PGSSLROOTCERT",
                "sslcert" => "PGSSLCERT",
                "sslkey" => "PGSSLKEY",
                "channel_binding" => "PGCHANNELBINDING",
                _ => return None,
            })
        };
        let mut vars: Vec<(String, String)> = self
            .common_settings(database, "pgteal/tool")
            .into_iter()
            .filter_map(|(key, value)| Some((variable(key)?.to_owned(), value)))
            .collect();
        if let Some(password) = self.password_for(database) {
            vars.push(("PGPASSWORD".to_owned(), password.reveal().to_owned()));
        }
        vars
    }

    /// Variables that would change where a PostgreSQL program connects; to be removed from a child's environment before
    /// [`ConnInfo::env_for_tools`] is added.
    pub const TOOL_VARIABLES: [&'static str; 22] = [
        "PGHOST",
        "PGHOSTADDR",
        "PGPORT",
        "PGDATABASE",
        "PGUSER",
        "PGPASSWORD",
        "PGPASSFILE",
        "PGSERVICE",
        "PGSERVICEFILE",
        "PGOPTIONS",
        "PGAPPNAME",
        "PGSSLMODE",
        "PGSSLNEGOTIATION",
        "PGSSLCERT",
        "PGSSLKEY",
        "PGSSLROOTCERT",
        "PGSSLCRL",
        "PGCHANNELBINDING",
        "PGTARGETSESSIONATTRS",
        "PGGSSENCMODE",
        "PGCONNECT_TIMEOUT",
        "PGDATESTYLE",
    ];

    fn common_settings(&self, database: &str, application_name: &str) -> Vec<(&'static str, String)> {
        let mut parts = vec![("host", self.host.clone())];
        parts.extend(self.hostaddr.map(|a| ("hostaddr", a.to_string())));
        parts.push(("port", self.port.to_string()));
        parts.push(("user", self.user.clone()));
        parts.push(("dbname", database.to_owned()));
        parts.push(("application_name", application_name.to_owned()));
        parts.push(("connect_timeout", self.connect_timeout.as_secs().max(2).to_string()));
        parts.extend(self.options.clone().map(|o| ("options", o)));
        if self.sslmode != SslMode::Prefer {
            parts.push(("sslmode", self.sslmode.as_str().to_owned()));
        }
        match &self.rootcert {
            RootCert::Default(_) => {}
            RootCert::File(path) => parts.push(("sslrootcert", path.display().to_string())),
            RootCert::System => parts.push(("sslrootcert", "system".to_owned())),
        }
        parts.extend(self.sslcert.as_ref().map(|p| ("sslcert", p.display().to_string())));
        parts.extend(self.sslkey.as_ref().map(|p| ("sslkey", p.display().to_string())));
        match self.channel_binding {
            ChannelBinding::Prefer => {}
            ChannelBinding::Disable => parts.push(("channel_binding", "disable".to_owned())),
            ChannelBinding::Require => parts.push(("channel_binding", "require".to_owned())),
        }
        parts.extend(self.keepalives.iter().map(|(key, value)| (*key, value.to_string())));
        parts
    }
}

fn join(parts: &[(&str, String)]) -> String {
    parts.iter().map(|(k, v)| format!("{k}={}", conninfo_value(v))).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}/{}", self.user, self.address(), self.dbname)
    }
}
