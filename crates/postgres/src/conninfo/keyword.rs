//! The keys libpq knows and what becomes of each: used, harmless, or refused because ignoring it would weaken what the
//! user asked for (PostgreSQL docs, "Parameter Key Words"). Turns keys and values into a [`ConnInfo`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{ChannelBinding, ConnInfo, ConnInfoError, Environment, RootCert, SslMode, passfile, service};

/// Keys that are used, with the environment variable that stands in for each.
const USED: [(&str, Option<&str>); 24] = [
    ("service", Some("PGSERVICE")),
    ("servicefile", Some("PGSERVICEFILE")),
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("port", Some("PGPORT")),
    ("user", Some("PGUSER")),
    ("password", Some("PGPASSWORD")),
    ("passfile", Some("PGPASSFILE")),
    ("dbname", Some("PGDATABASE")),
    ("options", Some("PGOPTIONS")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslnegotiation", Some("PGSSLNEGOTIATION")),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslkey", Some("PGSSLKEY")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("keepalives", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("keepalives_count", None),
    ("tcp_user_timeout", None),
    ("gssencmode", Some("PGGSSENCMODE")),
];

/// Keys without meaning here: our sessions choose their own name and encoding, and there is one host only.
const HARMLESS: [&str; 12] = [
    "application_name",
    "fallback_application_name",
    "client_encoding",
    "sslcompression",
    "sslsni",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
    "load_balance_hosts",
    "min_protocol_version",
    "max_protocol_version",
    "sslcertmode",
];

/// Keys that ask for something this program does not do.
const REFUSED: [&str; 12] = [
    "requirepeer",
    "require_auth",
    "requiressl",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "replication",
    "scram_client_key",
    "scram_server_key",
    "oauth_issuer",
];

/// The values of the used keys, from whichever place gave them first.
#[derive(Default)]
pub(super) struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    /// Adds the service file and the environment to what the text gave.
    pub(super) fn resolve(given: Vec<(String, String)>, env: &Environment) -> Result<Self, ConnInfoError> {
        let mut settings = Self::default();
        settings.add(given, true)?;
        let named =
            |key: &str, var: &str| settings.0.get(key).cloned().or_else(|| env.var(var).map(str::to_owned));
        if let Some(name) = named("service", "PGSERVICE") {
            let file = named("servicefile", "PGSERVICEFILE");
            settings.add(service::load(&name, file.as_deref(), env)?, false)?;
        }
        for (key, var) in USED {
            if let (Some(value), false) = (var.and_then(|v| env.var(v)), settings.0.contains_key(key)) {
                settings.0.insert(key, value.to_owned());
            }
        }
        Ok(settings)
    }

    /// Within one text the last value of a key counts; a later place never overrides an earlier one.
    fn add(&mut self, pairs: Vec<(String, String)>, overwrite: bool) -> Result<(), ConnInfoError> {
        for (key, value) in pairs {
            if let Some((known, _)) = USED.iter().find(|(k, _)| *k == key) {
                if overwrite || !self.0.contains_key(known) {
                    self.0.insert(known, value);
                }
            } else if REFUSED.contains(&key.as_str()) {
                return Err(ConnInfoError::Unsupported(key));
            } else if !HARMLESS.contains(&key.as_str()) {
                return Err(ConnInfoError::UnknownKey(key));
            }
        }
        Ok(())
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|v| !v.is_empty())
    }

    fn parsed<T: FromStr>(&self, key: &str, expected: &'static str) -> Result<Option<T>, ConnInfoError> {
        let read = |text: &str| text.trim().parse().map_err(|_| invalid(key, text, expected));
        self.text(key).map(read).transpose()
    }

    fn single(&self, key: &str) -> Result<Option<&str>, ConnInfoError> {
        match self.text(key) {
            Some(value) if value.contains(',') => Err(ConnInfoError::SeveralHosts(key.to_owned())),
            value => Ok(value),
        }
    }

    pub(super) fn into_conninfo(self, env: &Environment) -> Result<ConnInfo, ConnInfoError> {
        for key in ["host", "hostaddr", "port"] {
            self.single(key)?;
        }
        let port = self.parsed::<u16>("port", "a port number")?.unwrap_or(5432);
        let hostaddr = self.parsed::<IpAddr>("hostaddr", "an IP address")?;
        let host = match (self.text("host"), hostaddr) {
            (Some(host), _) => host.to_owned(),
            (None, Some(addr)) => IpAddr::to_string(&addr),
            (None, None) => default_host(port),
        };
        let missing_user =
            || ConnInfoError::Syntax("no `user` is given and the system user has no name".to_owned());
        let user =
            self.text("user").map(str::to_owned).or_else(|| env.os_user.clone()).ok_or_else(missing_user)?;
        let seconds = self.parsed::<i64>("connect_timeout", "a number of seconds")?;
        let rootcert = self.rootcert(env);
        let home_file = |name: &str| env.at_home(name).filter(|p| p.exists());
        let passfile = self.text("passfile").map(PathBuf::from).or_else(|| env.at_home(".pgpass"));
        Ok(ConnInfo {
            dbname: self.text("dbname").unwrap_or(&user).to_owned(),
            password: self.text("password").map(crate::Password::new),
            passfile: passfile.map(|p| passfile::load(&p)).unwrap_or_default(),
            options: self.text("options").map(str::to_owned),
            connect_timeout: match seconds {
                // libpq treats 1 as 2, since a limit of one second could be one of no time at all.
                Some(s) if s > 0 => Duration::from_secs(s.unsigned_abs().max(2)),
                _ => ConnInfo::DEFAULT_CONNECT_TIMEOUT,
            },
            sslmode: self.sslmode(&rootcert)?,
            ssl_direct: match self.text("sslnegotiation") {
                None | Some("postgres") => false,
                Some("direct") => true,
                Some(other) => return Err(invalid("sslnegotiation", other, "`postgres` or `direct`")),
            },
            sslcert: self
                .text("sslcert")
                .map(PathBuf::from)
                .or_else(|| home_file(".postgresql/postgresql.crt")),
            sslkey: self
                .text("sslkey")
                .map(PathBuf::from)
                .or_else(|| home_file(".postgresql/postgresql.key")),
            rootcert,
            channel_binding: match self.text("channel_binding") {
                None | Some("prefer") => ChannelBinding::Prefer,
                Some("disable") => ChannelBinding::Disable,
                Some("require") => ChannelBinding::Require,
                Some(other) => {
                    return Err(invalid("channel_binding", other, "`disable`, `prefer` or `require`"));
                }
            },
            target_session_attrs: self.target_session_attrs()?,
            keepalives: self.keepalives()?,
            host,
            hostaddr,
            port,
            user,
        })
    }

    fn rootcert(&self, env: &Environment) -> RootCert {
        match self.text("sslrootcert") {
            Some("system") => RootCert::System,
            Some(path) => RootCert::File(PathBuf::from(path)),
            None => RootCert::Default(env.at_home(".postgresql/root.crt")),
        }
    }

    fn sslmode(&self, rootcert: &RootCert) -> Result<SslMode, ConnInfoError> {
        match self.text("gssencmode") {
            None | Some("disable" | "prefer") => {}
            Some("require") => return Err(ConnInfoError::Unsupported("gssencmode=require".to_owned())),
            Some(other) => return Err(invalid("gssencmode", other, "disable or prefer")),
        }
        let mode = match self.text("sslmode") {
            Some(name) => Some(SslMode::from_name(name).ok_or_else(|| {
                invalid("sslmode", name, "disable, allow, prefer, require, verify-ca or verify-full")
            })?),
            None => None,
        };
        match (rootcert, mode) {
            // With the system's store every weaker mode would be pointless; libpq refuses them as well.
            (RootCert::System, None | Some(SslMode::VerifyFull)) => Ok(SslMode::VerifyFull),
            (RootCert::System, Some(weak)) => {
                Err(invalid("sslmode", weak.as_str(), "verify-full, which sslrootcert=system needs"))
            }
            (_, mode) => Ok(mode.unwrap_or(SslMode::Prefer)),
        }
    }

    fn target_session_attrs(&self) -> Result<Option<String>, ConnInfoError> {
        const KNOWN: [&str; 6] = ["any", "read-write", "read-only", "primary", "standby", "prefer-standby"];
        match self.text("target_session_attrs") {
            Some(value) if !KNOWN.contains(&value) => Err(invalid(
                "target_session_attrs",
                value,
                "any, read-write, read-only, primary, standby or prefer-standby",
            )),
            value => Ok(value.map(str::to_owned)),
        }
    }

    fn keepalives(&self) -> Result<Vec<(&'static str, u64)>, ConnInfoError> {
        let mut found = Vec::new();
        for key in
            ["keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"]
        {
            if let Some(value) = self.parsed::<u64>(key, "a number")? {
                found.push((key, value));
            }
        }
        Ok(found)
    }
}

fn invalid(key: &str, value: &str, expected: &'static str) -> ConnInfoError {
    ConnInfoError::Value { key: key.to_owned(), value: value.to_owned(), expected }
}

/// Debian's and upstream's socket directories, whichever has a socket for the port; else TCP.
fn default_host(port: u16) -> String {
    ["/var/run/postgresql", "/tmp"]
        .into_iter()
        .find(|dir| std::path::Path::new(dir).join(format!(".s.PGSQL.{port}")).exists())
        .unwrap_or("localhost")
        .to_owned()
}
