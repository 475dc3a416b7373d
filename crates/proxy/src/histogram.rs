//! Owns durations, counted by how long they were. Refuses to know what took so long.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds in microseconds: from what nobody notices to what a driver may ask for.
pub(crate) const BOUNDS_US: [u64; 16] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
];

/// Durations since the start.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One for each bound, not counting those below the bound before it.
    counts: [AtomicU64; BOUNDS_US.len()],
    /// Longer than the last bound.
    longer: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).and_then(|at| self.counts.get(at));
        bucket.unwrap_or(&self.longer).fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// For each bound in microseconds how many were no longer; how many there were in all; the sum in microseconds.
    pub(crate) fn read(&self) -> (Vec<(u64, u64)>, u64, u64) {
        let mut so_far = 0;
        let buckets = BOUNDS_US.iter().zip(&self.counts).map(|(bound, count)| {
            so_far += count.load(Relaxed);
            (*bound, so_far)
        });
        let buckets: Vec<_> = buckets.collect();
        (buckets, so_far + self.longer.load(Relaxed), self.sum_us.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_count_up_to_their_bound_and_above() {
        let histogram = Histogram::default();
        for ms in [1, 2, 200_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let (buckets, count, sum) = histogram.read();
        assert_eq!(buckets.get(..3), Some(&[(1_000, 1), (2_500, 2), (5_000, 2)][..]));
        assert_eq!((buckets.last(), count, sum), (Some(&(120_000_000, 2)), 3, 200_003_000));
    }
}
