//! Owns the proxy's counters. Refuses to know who reads them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::histogram::Histogram;
use crate::registry::Totals;

/// A bound that somebody has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    MaxClients,
    MaxUser,
    MaxDb,
    MaxAddress,
    MaxUnauthenticated,
    MaxHeldClients,
    MaxHeldBytes,
    MaxPacketSize,
    ClientLogin,
}

impl Limit {
    pub(crate) const ALL: [Self; 9] = [
        Self::MaxClients,
        Self::MaxUser,
        Self::MaxDb,
        Self::MaxAddress,
        Self::MaxUnauthenticated,
        Self::MaxHeldClients,
        Self::MaxHeldBytes,
        Self::MaxPacketSize,
        Self::ClientLogin,
    ];

    /// As the configuration calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::MaxClients => "max_clients",
            Self::MaxUser => "max_user_client_connections",
            Self::MaxDb => "max_db_client_connections",
            Self::MaxAddress => "max_address_client_connections",
            Self::MaxUnauthenticated => "max_unauthenticated",
            Self::MaxHeldClients => "max_held_clients",
            Self::MaxHeldBytes => "max_held_bytes",
            Self::MaxPacketSize => "max_packet_size",
            Self::ClientLogin => "client_login_ms",
        }
    }
}

/// Counters since the start or the last `RESET STATS`.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    /// Connections accepted.
    pub(crate) accepted: AtomicU64,
    /// Client sessions that the proxy ended.
    pub(crate) closed_by_proxy: AtomicU64,
    /// Of these, ended with 57P01.
    pub(crate) ended_57p01: AtomicU64,
    /// Upstreams that went away under a session.
    pub(crate) upstream_lost: AtomicU64,
    /// Clients that did not prove who they are, in time or at all, or whom their server refused.
    pub(crate) login_failures: AtomicU64,
    /// How often somebody has met a bound.
    hits: [AtomicU64; Limit::ALL.len()],
    /// Connections of readers that were opened to a primary, for want of a replica.
    pub(crate) read_fallbacks: AtomicU64,
    /// Cancel requests of clients.
    pub(crate) cancels: AtomicU64,
    /// How long client messages waited before the gate; never reset.
    pub(crate) stalls: Histogram,
    /// The longest a client message waited before the gate, in microseconds.
    pub(crate) longest_stall_us: AtomicU64,
    /// What sessions had done by the last reset.
    pub(crate) before: Mutex<Totals>,
}

impl Stats {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Somebody has met a bound.
    pub(crate) fn hit(&self, limit: Limit) {
        self.hit_by(limit, 1);
    }

    /// So many have.
    pub(crate) fn hit_by(&self, limit: Limit, count: usize) {
        if let Some(counter) = self.hits.get(limit as usize) {
            counter.fetch_add(count as u64, Relaxed);
        }
    }

    /// How often somebody has met each bound.
    pub(crate) fn hits(&self) -> impl Iterator<Item = (Limit, u64)> {
        Limit::ALL.into_iter().zip(self.hits.iter().map(|counter| counter.load(Relaxed)))
    }

    /// What sessions have done since the last reset.
    pub(crate) fn since_reset(&self, totals: Totals) -> Totals {
        let before = *self.before.lock().unwrap_or_else(PoisonError::into_inner);
        Totals {
            queries: totals.queries.saturating_sub(before.queries),
            received: totals.received.saturating_sub(before.received),
            sent: totals.sent.saturating_sub(before.sent),
        }
    }

    /// Everything to zero.
    pub(crate) fn reset(&self, totals: Totals) {
        for counter in [
            &self.accepted,
            &self.closed_by_proxy,
            &self.ended_57p01,
            &self.upstream_lost,
            &self.login_failures,
            &self.read_fallbacks,
            &self.cancels,
            &self.longest_stall_us,
        ]
        .into_iter()
        .chain(&self.hits)
        {
            counter.store(0, Relaxed);
        }
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = totals;
    }
}
