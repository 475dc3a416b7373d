//! Owns `SHOW STATS`. Changes nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::answer::Answer;
use crate::shared::Shared;

pub(super) fn show_stats(shared: &Shared) -> Answer {
    let stats = &shared.stats;
    let read = |counter: &AtomicU64| counter.load(Relaxed).to_string();
    let totals = stats.since_reset(shared.registry.totals());
    let mut answer = Answer::one([
        ("accepted", read(&stats.accepted)),
        ("clients", shared.registry.len().to_string()),
        ("closed_by_proxy", read(&stats.closed_by_proxy)),
        ("ended_57p01", read(&stats.ended_57p01)),
        ("upstream_lost", read(&stats.upstream_lost)),
        ("upstreams_reused", shared.pool.taken().to_string()),
        ("longest_stall_us", read(&stats.longest_stall_us)),
        ("last_hold_us", shared.gate.view().last_hold.as_micros().to_string()),
        ("queries", totals.queries.to_string()),
        ("received_bytes", totals.received.to_string()),
        ("sent_bytes", totals.sent.to_string()),
        ("login_failures", read(&stats.login_failures)),
        ("cancel_requests", read(&stats.cancels)),
        ("read_fallbacks", read(&stats.read_fallbacks)),
    ]);
    // How often each bound was met.
    for (limit, count) in stats.hits() {
        answer.and(limit.name(), count.to_string());
    }
    answer
}
