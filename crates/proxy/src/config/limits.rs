//! Owns the bounds that the proxy keeps, and their defaults. Refuses to keep them itself.

use std::time::Duration;

use pgteal_wire::frame::LARGE_MESSAGE_LIMIT;
use serde::Deserialize;

/// Every bound of the proxy. Times in milliseconds, sizes in bytes.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Client connections at once; the next one is refused with 53300.
    pub max_clients: usize,
    /// Of them, of one user; not bounded when 0. What is over it is refused with 53300, as in the next two.
    pub max_user_client_connections: usize,
    /// To one database; not bounded when 0.
    pub max_db_client_connections: usize,
    /// From one address; not bounded when 0.
    pub max_address_client_connections: usize,
    /// Connections, besides `max_clients`, that have not said or not proven who they are. When there are more, those go first
    /// that have taken longest to say it, 3 s at least (15 s to prove it).
    pub max_unauthenticated: usize,
    /// Who may wait before the gate in a hold: when there are more, new logins are refused with 53300; not bounded when 0.
    /// Sessions always may.
    pub max_held_clients: usize,
    /// Bytes of clients that wait before the gate. What they send beyond it waits with them.
    pub max_held_bytes: usize,
    /// The largest message taken from a client, in bytes; a larger one ends its session with 08P01.
    pub max_packet_size: usize,
    /// From accept until the client has sent its startup packet and proven who it is, not counting what it waits before the
    /// gate.
    pub client_login_ms: u64,
    /// Opening one upstream, from connect to its first `ReadyForQuery`.
    pub upstream_login_ms: u64,
    /// Upstreams opened at the same time while warming.
    pub warm_concurrency: usize,
    /// Bytes buffered per direction of a session while they are on their way; four times as many where much comes at once.
    pub buffer_bytes: usize,
    /// Bytes of `Parse` messages kept per session for replay; beyond it the session cannot be carried.
    pub prepared_bytes: usize,
    /// One round trip to observe a session's state.
    pub observe_ms: u64,
    /// How long a statement is held and tried again that a fenced server refused as the first of its transaction; 0 is not at all.
    pub fence_wait_ms: u64,
    /// The longest hold a driver may ask for.
    pub hold_limit_max_ms: u64,
    /// After SIGTERM, how long open transactions may finish.
    pub shutdown_ms: u64,
    /// After another process has taken over, how long the clients of this one may stay; then it ends as after SIGTERM.
    pub takeover_drain_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_clients: 10_000,
            max_user_client_connections: 0,
            max_db_client_connections: 0,
            max_address_client_connections: 0,
            max_unauthenticated: 1_000,
            max_held_clients: 0,
            max_held_bytes: 256 * 1024 * 1024,
            max_packet_size: LARGE_MESSAGE_LIMIT + 1,
            client_login_ms: 60_000,
            upstream_login_ms: 10_000,
            warm_concurrency: 8,
            buffer_bytes: 16 * 1024,
            prepared_bytes: 4 * 1024 * 1024,
            observe_ms: 5_000,
            fence_wait_ms: 30_000,
            hold_limit_max_ms: 120_000,
            shutdown_ms: 5_000,
            takeover_drain_ms: 300_000,
        }
    }
}

impl Limits {
    /// The bound of one upstream login.
    #[must_use]
    pub const fn upstream_login(&self) -> Duration {
        Duration::from_millis(self.upstream_login_ms)
    }

    /// The bound of one client login.
    #[must_use]
    pub const fn client_login(&self) -> Duration {
        Duration::from_millis(self.client_login_ms)
    }

    /// The bound of one observation.
    #[must_use]
    pub const fn observe(&self) -> Duration {
        Duration::from_millis(self.observe_ms)
    }

    /// The bound of the tries of one statement that a fence refuses.
    #[must_use]
    pub const fn fence_wait(&self) -> Duration {
        Duration::from_millis(self.fence_wait_ms)
    }
}
