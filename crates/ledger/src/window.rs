//! Live figures: counters, latency quantiles and the longest stall since the last mark. Owns their arithmetic;
//! refuses to know sessions and connections.

use serde::Serialize;

use crate::record::Outcome;

/// What clients saw between two instants of the workload's clock. All times in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct WindowReport {
    /// When the window began.
    pub from_us: u64,
    /// When the window ended or was read.
    pub to_us: u64,
    /// Transactions confirmed in it.
    pub acked: u64,
    /// Transactions that ended with an error and certainly without effect.
    pub failed: u64,
    /// Transactions that ended without an answer to their COMMIT.
    pub unknown: u64,
    /// The longest any one transaction took from the instant it was *due* (which is when it was sent, if the workload
    /// runs flat out); transactions still under way count with their age.
    pub longest_stall_us: u64,
    /// The longest any one transaction took from the instant it was *sent*; those under way count with their age.
    pub longest_latency_us: u64,
    /// Median latency from sending, of ended transactions; exact to one sixteenth.
    pub p50_us: u64,
    /// 99th percentile of the same.
    pub p99_us: u64,
}

impl WindowReport {
    pub(crate) fn take_in(&mut self, outcome: Outcome, stall_us: u64, latency_us: u64) {
        match outcome {
            Outcome::Acked => self.acked += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Unknown(_) => self.unknown += 1,
        }
        self.longest_stall_us = self.longest_stall_us.max(stall_us);
        self.longest_latency_us = self.longest_latency_us.max(latency_us);
    }
}

/// Totals since the workload began and the window since the last mark.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Counters {
    /// Transactions confirmed since the start, reads included.
    pub acked: u64,
    /// Transactions refused or broken before their COMMIT was sent.
    pub failed: u64,
    /// Transactions that ended without an answer to their COMMIT.
    pub unknown: u64,
    /// Established connections lost without the workload closing them.
    pub connections_dropped: u64,
    /// Attempts to connect that did not succeed.
    pub connect_failures: u64,
    /// Sessions that hold a connection now.
    pub connected: u64,
    /// Sessions that write or could write; those that gave up reconnecting are gone.
    pub sessions: u64,
    /// Since the last mark.
    pub window: WindowReport,
}

/// Sixteen buckets for each power of two.
const SUB: u64 = 16;
const BUCKETS: usize = 64 * SUB as usize;

/// Counts of latencies, exact to one sixteenth, of a fixed size.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u32>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: vec![0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, value: u64) {
        let bucket = &mut self.buckets[bucket_of(value)];
        *bucket = bucket.saturating_add(1);
        self.total += 1;
    }

    /// The smallest bucket's upper end that covers `share` of all values; 0 without any.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted && seen > 0 {
                return top_of(index);
            }
        }
        0
    }

    pub(crate) fn clear(&mut self) {
        self.buckets.fill(0);
        self.total = 0;
    }
}

fn bucket_of(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let power = u64::from(value.ilog2());
    let sub = (value >> (power - 4)) - SUB;
    ((power - 3) * SUB + sub) as usize
}

fn top_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let power = bucket / SUB + 3;
    let sub = bucket % SUB;
    ((SUB + sub + 1) << (power - 4)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_bucket_that_ends_within_a_sixteenth_above_it() {
        for value in (0..2_000).chain([65_535, 65_536, 1_000_000, 123_456_789, u64::from(u32::MAX)]) {
            let top = top_of(bucket_of(value));
            assert!(top >= value && top - value <= value / 16, "{value} is counted as {top}");
        }
    }

    #[test]
    fn quantiles_of_a_known_set() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), 0);
        (1..=100).for_each(|value| histogram.add(value));
        assert_eq!((histogram.quantile(0.5), histogram.quantile(0.99)), (51, 99));
        assert_eq!(histogram.quantile(1.0), 103);
        histogram.clear();
        assert_eq!(histogram.quantile(1.0), 0);
    }
}
