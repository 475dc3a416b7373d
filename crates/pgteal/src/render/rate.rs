//! How fast something goes and when it will be over. A pure calculation over samples.

use std::time::{Duration, Instant};

/// Samples of one counter.
#[derive(Debug)]
pub(super) struct Rate {
    first: (Instant, u64),
    last: (Instant, u64),
}

impl Rate {
    pub(super) const fn new(now: Instant, done: u64) -> Self {
        Self { first: (now, done), last: (now, done) }
    }

    pub(super) const fn sample(&mut self, now: Instant, done: u64) {
        self.last = (now, done);
    }

    /// Units a second since the first sample; `None` before half a second has passed.
    pub(super) fn per_second(&self) -> Option<f64> {
        let seconds = self.last.0.saturating_duration_since(self.first.0).as_secs_f64();
        #[allow(clippy::cast_precision_loss)]
        let units = self.last.1.saturating_sub(self.first.1) as f64;
        (seconds >= 0.5).then_some(units / seconds)
    }

    /// The time that the rest will take at this rate; `None` when it cannot be said.
    pub(super) fn eta(&self, total: u64) -> Option<Duration> {
        let rate = self.per_second().filter(|rate| *rate > 0.0)?;
        #[allow(clippy::cast_precision_loss)]
        let left = total.saturating_sub(self.last.1) as f64;
        Duration::try_from_secs_f64(left / rate).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_eta() {
        let start = Instant::now();
        let mut rate = Rate::new(start, 100);
        assert_eq!((rate.per_second(), rate.eta(1000)), (None, None));
        rate.sample(start + Duration::from_secs(2), 300);
        assert_eq!(rate.per_second(), Some(100.0));
        assert_eq!(rate.eta(1000), Some(Duration::from_secs(7)));
        assert_eq!(rate.eta(200), Some(Duration::ZERO));
        let stalled = Rate { first: (start, 5), last: (start + Duration::from_secs(9), 5) };
        assert_eq!(stalled.eta(10), None);
    }
}
