//! Owns the proxy's counters. Refuses to know who reads them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    /// The longest a client message waited before the gate, in microseconds.
    pub(crate) longest_stall_us: AtomicU64,
    /// The value of the query counter at the last reset.
    pub(crate) queries_before: AtomicU64,
}

impl Stats {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Everything to zero.
    pub(crate) fn reset(&self, queries: u64) {
        for counter in [
            &self.accepted,
            &self.closed_by_proxy,
            &self.ended_57p01,
            &self.upstream_lost,
            &self.longest_stall_us,
        ] {
            counter.store(0, Relaxed);
        }
        self.queries_before.store(queries, Relaxed);
    }
}
