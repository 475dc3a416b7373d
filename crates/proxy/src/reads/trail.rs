//! Owns the memory of where a primary's log was at which time, by which it is told how far behind a replica is. Refuses
//! to ask servers.
//!
//! A replica that has replayed what the primary had written at some instant is no further behind than that instant.
//! This needs no clock but ours, and stays 0 with a primary that nobody writes to, where the time of the last replayed
//! transaction (`pg_last_xact_replay_timestamp`) says hours; and a replica that is cut off from its primary does not
//! seem to be level with it for having replayed all that it received.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::ReadsConfig;

/// Positions that are remembered, at most; so far apart at least, they reach back for longer than anybody may ask for.
const MOST: usize = 4096;
const APART: Duration = Duration::from_millis(900);

/// A position in the write-ahead log, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(pub(super) u64);

impl Position {
    /// Reads `16/B374D848`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let half = |text| u32::from_str_radix(text, 16).ok().map(u64::from);
        Some(Self(half(high)? << 32 | half(low)?))
    }
}

/// Where the primary was, the oldest first; each position when it was first seen.
#[derive(Debug, Default)]
pub(super) struct Trail(VecDeque<(Position, Instant)>);

impl Trail {
    /// The primary is here now.
    pub(super) fn is_at(&mut self, position: Position, now: Instant) {
        match self.0.back() {
            Some((last, _)) if *last == position => return,
            // It was made anew from an older copy: what was ahead of it is not to be waited for.
            Some((last, _)) if *last > position => self.0.clear(),
            Some((_, at)) if now.saturating_duration_since(*at) < APART => return,
            _ => {}
        }
        self.0.push_back((position, now));
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > ReadsConfig::LONGEST_LAG;
        // The first of those that are older stays: it is what tells that somebody is further behind.
        while self.0.len() > MOST || self.0.get(1).is_some_and(|(_, at)| is_old(at)) {
            self.0.pop_front();
        }
    }

    /// For how long at most a replica that has replayed so far has not had all that the primary had. `oldest` is the age of
    /// the last transaction that it replayed, by its own clock, and stands in for one that is behind all that is
    /// remembered: since when, the trail cannot tell. `None` when nobody knows.
    pub(super) fn behind(
        &self,
        replayed: Position,
        oldest: Option<Duration>,
        now: Instant,
    ) -> Option<Duration> {
        self.0.back()?;
        let missing = self.0.partition_point(|(position, _)| *position <= replayed);
        let since = self.0.get(missing).map(|(_, at)| now.saturating_duration_since(*at));
        if missing > 0 {
            Some(since.unwrap_or_default())
        } else {
            oldest.max(since).filter(|_| oldest.is_some())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn positions_are_read_as_servers_write_them() {
        assert_eq!(Position::parse("16/B374D848"), Some(Position(0x16_B374_D848)));
        assert_eq!(Position::parse("0/0"), Some(Position(0)));
        for text in ["", "16", "16/", "x/1", "1/1/1", "100000000/0"] {
            assert_eq!(Position::parse(text), None, "{text}");
        }
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_position_that_is_missing() {
        let (mut trail, start) = (Trail::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(trail.behind(Position(9), Some(Duration::ZERO), start), None);
        for (position, seconds) in [(10, 0), (20, 1), (20, 2), (30, 3)] {
            trail.is_at(Position(position), at(seconds));
        }
        for (replayed, seconds) in [(30, 0), (31, 0), (29, 1), (20, 1), (19, 3), (10, 3)] {
            let lag = trail.behind(Position(replayed), None, at(4)).unwrap();
            assert_eq!(lag, Duration::from_secs(seconds), "{replayed}");
        }
        // Behind all that is remembered: for how long, only the replica itself may tell.
        assert_eq!(trail.behind(Position(9), None, at(4)), None);
        for (oldest, lag) in
            [(900, 900), (2, 4)].map(|(a, b)| (Duration::from_secs(a), Duration::from_secs(b)))
        {
            assert_eq!(trail.behind(Position(9), Some(oldest), at(4)), Some(lag));
        }
        // Nobody writes: who has all of it stays level.
        trail.is_at(Position(30), at(3_000));
        assert_eq!(trail.behind(Position(30), None, at(3_000)), Some(Duration::ZERO));
        assert_eq!(trail.behind(Position(29), None, at(3_000)), Some(Duration::from_secs(2_997)));
        // A primary that is behind itself is another one.
        trail.is_at(Position(5), at(3_001));
        assert_eq!(trail.behind(Position(5), None, at(3_002)), Some(Duration::ZERO));
        assert_eq!(trail.behind(Position(4), None, at(3_002)), None);
    }

    #[test]
    fn positions_that_are_close_in_time_are_one() {
        let (mut trail, start) = (Trail::default(), Instant::now());
        (0..100).for_each(|n| trail.is_at(Position(n), start + Duration::from_millis(n * 100)));
        // At 0, 0.9, 1.8 and so on up to 9.9 s.
        assert_eq!(trail.0.len(), 12);
        let lag = trail.behind(Position(0), None, start + Duration::from_secs(10)).unwrap();
        assert!(lag >= Duration::from_secs(9), "{lag:?}");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut trail, start) = (Trail::default(), Instant::now());
        for n in 0..20_000 {
            trail.is_at(Position(n), start + Duration::from_secs(n));
            assert!(trail.0.len() <= MOST);
        }
        let (oldest, now) = (trail.0[0].0, start + Duration::from_secs(20_000));
        let lag = trail.behind(oldest, None, now).unwrap();
        assert!(lag >= ReadsConfig::LONGEST_LAG, "{lag:?}");
        assert_eq!(trail.behind(Position(oldest.0 - 1), None, now), None);
    }
}
