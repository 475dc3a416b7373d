//! Owns the settings of server connections that are used again, and their defaults. Refuses to keep any.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;

/// Server connections that are used again when their clients have left, after `DISCARD ALL`. Only a client gets one that sends
/// the very same startup packet, and has proven to the proxy by the very same verifier that it is this user. Names and units
/// are PgBouncer's.
///
/// What a server decides at a login it has decided then: settings of roles and databases, connection limits and login event
/// triggers that were changed since are not seen before `server_lifetime`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Seconds that a connection lies idle before it is closed; 0: none is used again.
    pub server_idle_timeout: f64,
    /// Seconds after its login at which a connection is not used again.
    pub server_lifetime: f64,
    /// Idle connections that are kept of one kind: of the same user, database and startup packet.
    pub default_pool_size: usize,
    /// Idle connections that are kept in all.
    pub max_idle_connections: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            // Less than the 5 s that PostgreSQL waits for others to leave a database that is to be dropped, renamed or copied
            // (`src/backend/storage/ipc/procarray.c`, "CountOtherDBBackends").
            server_idle_timeout: 3.0,
            server_lifetime: 3_600.0,
            default_pool_size: 20,
            max_idle_connections: 50,
        }
    }
}

impl PoolConfig {
    /// The longest time that it may be asked to keep anything, in seconds.
    const LONGEST: f64 = 31_536_000.0;

    /// The bound of one connection's rest.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        Duration::try_from_secs_f64(self.server_idle_timeout).unwrap_or_default()
    }

    /// The bound of one connection's life.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        Duration::try_from_secs_f64(self.server_lifetime).unwrap_or_default()
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let times = [
            ("pool.server_idle_timeout", self.server_idle_timeout),
            ("pool.server_lifetime", self.server_lifetime),
        ];
        match times.into_iter().find(|(_, seconds)| !(0.0..=Self::LONGEST).contains(seconds)) {
            Some((key, _)) => Err(ConfigError::Value { key, reason: "must lie between 0 and a year".into() }),
            None => Ok(()),
        }
    }
}
