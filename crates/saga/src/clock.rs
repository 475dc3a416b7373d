//! The run's clock: wall time that, inside one process, never steps back.
//! Refuses to ask the system for the time more than once.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Wall time read once, counted on by the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: Timestamp,
    start: Instant,
}

impl Clock {
    /// A clock that begins now.
    pub fn system() -> Self {
        Self::starting_at(Timestamp::now())
    }

    /// A clock that begins at `wall`.
    pub fn starting_at(wall: Timestamp) -> Self {
        Self { wall: to_micros(wall), start: Instant::now() }
    }

    /// The time, cut to microseconds as the journal keeps it.
    pub fn now(&self) -> Timestamp {
        self.at(self.start.elapsed())
    }

    /// Nanoseconds since the clock began.
    pub fn mono_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The monotonic instant at which this clock shows `at`; the beginning for what lies before it.
    pub fn instant_of(&self, at: Timestamp) -> Instant {
        let ahead = Duration::try_from(at.duration_since(self.wall)).unwrap_or(Duration::ZERO);
        self.start.checked_add(ahead).unwrap_or(self.start)
    }

    fn at(&self, elapsed: Duration) -> Timestamp {
        let elapsed = SignedDuration::try_from(elapsed).unwrap_or(SignedDuration::MAX);
        to_micros(self.wall.saturating_add(elapsed).unwrap_or(Timestamp::MAX))
    }
}

fn to_micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wall_and_monotonic_time_go_together() {
        let clock = Clock::starting_at("2026-12-03T10:00:00.1234567Z".parse().unwrap());
        tokio::time::advance(Duration::from_millis(1500)).await;
        assert_eq!(clock.now().to_string(), "2026-12-03T10:00:01.623456Z");
        assert_eq!(clock.mono_ns(), 1_500_000_000);
        assert_eq!(clock.instant_of(clock.now()), Instant::now());
        assert_eq!(clock.instant_of(Timestamp::MIN), clock.start);
    }
}
