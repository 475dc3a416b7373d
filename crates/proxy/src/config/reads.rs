//! Owns the settings of the read route: where its clients come in, which replicas a side has, how far behind they may
//! be, and what becomes of readers when there is none. Refuses to connect to any.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::{Config, ConfigError, ServerConfig};

/// The read route. A client takes it by one of the addresses of `listen`, or anywhere by the startup option
/// `-c pgteal.route=read`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadsConfig {
    /// TCP addresses where every client is a reader. Port 0 takes a free port.
    pub listen: Vec<SocketAddr>,
    /// What becomes of a reader's login when no replica takes it.
    pub fallback: ReadFallback,
    /// A replica that is further behind its primary than this, in milliseconds, gets no new sessions; 0: however far it
    /// is.
    pub max_replica_lag_ms: u64,
    /// How often each replica and the primary are asked how far they are, in milliseconds.
    pub check_interval_ms: u64,
}

/// What becomes of a reader's login when no replica takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadFallback {
    /// It goes to the primary, and is on primaries for its life.
    #[default]
    Primary,
    /// It is refused.
    Refuse,
}

impl ReadFallback {
    /// As the configuration says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Refuse => "refuse",
        }
    }
}

impl Default for ReadsConfig {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            fallback: ReadFallback::Primary,
            max_replica_lag_ms: 10_000,
            check_interval_ms: 1_000,
        }
    }
}

impl ReadsConfig {
    /// Replicas of one side, at most.
    const MOST: usize = 64;
    /// The longest lag that may be asked for; what lies further back is not remembered.
    pub(crate) const LONGEST_LAG: Duration = Duration::from_secs(3_600);

    /// The bound of the lag, if there is one.
    #[must_use]
    pub fn max_lag(&self) -> Option<Duration> {
        (self.max_replica_lag_ms > 0).then(|| Duration::from_millis(self.max_replica_lag_ms))
    }

    /// The time between two checks.
    #[must_use]
    pub const fn check_interval(&self) -> Duration {
        Duration::from_millis(self.check_interval_ms)
    }

    pub(super) fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let bad = |key, reason: String| Err(ConfigError::Value { key, reason });
        let longest = Self::LONGEST_LAG.as_millis();
        if u128::from(self.max_replica_lag_ms) > longest {
            return bad("reads.max_replica_lag_ms", format!("must lie between 0 and {longest}"));
        }
        if !(100..=60_000).contains(&self.check_interval_ms) {
            return bad("reads.check_interval_ms", "must lie between 100 and 60000".into());
        }
        let mut all = 0;
        for server in [Some(&config.blue), config.green.as_ref()].into_iter().flatten() {
            all += server.replicas()?.len();
            let mut known = HashSet::new();
            for replica in server.replicas()? {
                let (host, port) = (replica.host.to_ascii_lowercase(), replica.port);
                if !known.insert((host, port)) {
                    return bad("replicas", format!("lists {}:{port} twice", replica.host));
                }
            }
            if server.replicas.len() > Self::MOST {
                return bad("replicas", format!("lists more than {} servers", Self::MOST));
            }
        }
        if self.fallback == ReadFallback::Refuse && all == 0 {
            return bad(
                "reads.fallback",
                "is \"refuse\", but there are no replicas: nobody could read".into(),
            );
        }
        Ok(())
    }
}

impl ServerConfig {
    /// The replicas, each with the TLS settings of the side.
    ///
    /// # Errors
    /// An address that is none.
    pub fn replicas(&self) -> Result<Vec<Self>, ConfigError> {
        let read = |text: &String| {
            let (host, port) = address(text).ok_or_else(|| ConfigError::Value {
                key: "replicas",
                reason: format!("lists \"{text}\", which is neither a host nor host:port"),
            })?;
            Ok(Self { host: host.to_owned(), port, replicas: Vec::new(), ..self.clone() })
        };
        self.replicas.iter().map(read).collect()
    }
}

/// Host and port: `host`, `host:port`, `[::1]:port`, or the directory of a Unix socket with the number of its name.
fn address(text: &str) -> Option<(&str, u16)> {
    let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, ""))) => (host, None),
        Some(Some((host, rest))) => (host, Some(rest.strip_prefix(':')?)),
        Some(None) => return None,
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Some(super::default_server_port()), |port| port.parse().ok())?;
    let is_ambiguous = !text.starts_with('[') && !host.starts_with('/') && host.contains(':');
    (!host.is_empty() && !is_ambiguous && port != 0).then_some((host, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn replicas_are_hosts_and_ports() {
        for (text, expected) in [
            ("db2", Some(("db2", 5432))),
            ("db2:5433", Some(("db2", 5433))),
            ("10.0.0.2:5433", Some(("10.0.0.2", 5433))),
            ("[::1]:5433", Some(("::1", 5433))),
            ("[::1]", Some(("::1", 5432))),
            ("/var/run/postgresql:5433", Some(("/var/run/postgresql", 5433))),
            ("/var/run/postgresql", Some(("/var/run/postgresql", 5432))),
            ("::1", None),
            ("::1:5433", None),
            ("[::1", None),
            ("[::1]5433", None),
            ("db2:", None),
            ("db2:0", None),
            ("db2:99999", None),
            (":5433", None),
            ("", None),
        ] {
            assert_eq!(address(text), expected, "{text}");
        }
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let base = "listen = [\"127.0.0.1:0\"]\nstate_file = \"s\"\n[blue]\nhost = \"a\"\n";
        let complaint = |more: &str| {
            let config: Config = toml::from_str(&format!("{base}{more}")).unwrap();
            config.check().map_err(|error| error.to_string()).err().unwrap_or_default()
        };
        assert_eq!(complaint("replicas = [\"b:5433\", \"c\"]\n[reads]\nfallback = \"refuse\""), "");
        for (more, key) in [
            ("[reads]\nfallback = \"refuse\"", "reads.fallback"),
            ("replicas = [\"b:x\"]", "replicas"),
            ("replicas = [\"b\", \"c\", \"B:5432\"]", "replicas"),
            ("[reads]\nmax_replica_lag_ms = 3600001", "reads.max_replica_lag_ms"),
            ("[reads]\ncheck_interval_ms = 99", "reads.check_interval_ms"),
        ] {
            assert!(complaint(more).starts_with(&format!("{key}: ")), "{}", complaint(more));
        }
    }
}
