//! Owns the pace of a `WARM`: how many sessions may have their turn at once. A server process that starts and logs in
//! takes a processor from those whose clients wait, so it is one at a time, and more only as far as the limit demands.
//! Refuses to know sessions; the clock comes from outside.

use std::time::Duration;

use tokio::time::Instant;

/// From the end of one turn to the next, while there is time.
pub(super) const BREATH: Duration = Duration::from_millis(2);
/// A turn that took less made nobody wait: no breath after it.
const NOTHING: Duration = Duration::from_millis(1);

/// The pace of one round.
#[derive(Debug)]
pub(super) struct Pace {
    /// Everybody is to have had a turn by then: a quarter of the limit.
    due: Instant,
    /// From here on there are no turns any more: half of the limit.
    hurry: Instant,
    most: usize,
    took: Duration,
}

impl Pace {
    /// For a round that may take `limit` and has at most `most` turns at once.
    pub(super) fn new(now: Instant, limit: Duration, most: usize) -> Self {
        Self { due: now + limit / 4, hurry: now + limit / 2, most: most.max(1), took: Duration::ZERO }
    }

    /// A turn is over. The newest counts for a quarter: servers grow slower and quicker while this goes on.
    pub(super) fn ended(&mut self, took: Duration) {
        self.took = if self.took.is_zero() { took } else { (self.took * 3 + took) / 4 };
    }

    /// How many turns at once it needs for `left` sessions; `running` is the age of the oldest turn under way.
    pub(super) fn at_once(&self, left: usize, running: Duration, now: Instant) -> usize {
        if now >= self.hurry {
            return usize::MAX;
        }
        let left_us = self.due.saturating_duration_since(now).as_micros();
        let turn_us = (self.took.max(running) + BREATH).as_micros();
        let needed = turn_us.saturating_mul(left as u128).checked_div(left_us);
        needed.map_or(self.most, |turns| {
            usize::try_from(turns).unwrap_or(self.most).saturating_add(1).min(self.most)
        })
    }

    /// How long to wait after a turn that took so long, when `at_once` may be under way.
    pub(super) fn breath(&self, took: Duration, at_once: usize) -> Option<Duration> {
        (took > NOTHING && at_once == 1).then_some(BREATH)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn as_many_at_once_as_the_limit_demands() {
        let ms = Duration::from_millis;
        let began = Instant::now();
        // limit, turns took, the running one, sessions left, passed so far -> at once
        for (limit, took, running, left, passed, expected) in [
            (30_000, 8, 0, 8, 0, 1),
            (30_000, 8, 0, 700, 0, 1),
            (30_000, 8, 0, 800, 0, 2),
            (30_000, 8, 0, 3_000, 0, 5),
            (30_000, 8, 0, 10_000, 0, 8),
            // Nothing is known of the first; when it takes long, others need not wait for its end.
            (30_000, 0, 0, 100, 0, 1),
            (30_000, 0, 400, 100, 0, 6),
            // The quarter has passed, the half.
            (30_000, 8, 0, 1, 7_600, 8),
            (30_000, 8, 0, 1, 15_000, usize::MAX),
            (7, 8, 0, 1, 0, 6),
            (0, 0, 0, 1, 0, usize::MAX),
        ] {
            let mut pace = Pace::new(began, ms(limit), 8);
            pace.ended(ms(took));
            let got = pace.at_once(left, ms(running), began + ms(passed));
            assert_eq!(
                got, expected,
                "limit {limit} took {took} running {running} left {left} passed {passed}"
            );
        }
    }

    #[test]
    fn the_newest_turns_count_more() {
        let mut pace = Pace::new(Instant::now(), Duration::from_secs(30), 8);
        for took in [8, 8, 100, 100, 100] {
            pace.ended(Duration::from_millis(took));
        }
        assert!((50..100).contains(&pace.took.as_millis()), "{:?}", pace.took);
    }
}
