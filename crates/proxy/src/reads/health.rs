//! Owns what is thought of one replica: whether it takes new sessions, why not, and when it is asked again. Pure: it
//! neither asks servers nor looks at the clock.

use std::time::Duration;

/// Failures in a row after which a replica gets no sessions. Before that it gets them when no other does.
const FAILURES: u32 = 3;
/// The longest time between two checks of one that is down.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) in_recovery: bool,
    /// Of another cluster than the primary, as far as that is known.
    pub(super) is_foreign: bool,
    /// `None` when nobody knows: the primary was not heard yet, or the replica does not tell where it is.
    pub(super) lag: Option<Duration>,
}

/// What is thought of a replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not checked yet; or its lag is bounded, and nobody knows it.
    #[default]
    Unknown,
    Fit,
    Behind,
    /// It takes writes by itself.
    Primary,
    /// It is of another cluster.
    Foreign,
    Down(String),
}

impl Standing {
    /// As the console shows it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Unknown => "unknown".into(),
            Self::Fit => "fit".into(),
            Self::Behind => "behind".into(),
            Self::Primary => "not a replica: it is not in recovery".into(),
            Self::Foreign => "not a replica of this primary: its system identifier is another".into(),
            Self::Down(why) => format!("down: {why}"),
        }
    }
}

/// One replica's health.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    pub(super) standing: Standing,
    pub(super) lag: Option<Duration>,
    failures: u32,
    checks: u32,
}

impl Health {
    /// A check was answered. True when what is thought of the replica is another now.
    pub(super) fn answered(&mut self, seen: Seen, max_lag: Option<Duration>) -> bool {
        self.failures = 0;
        self.lag = seen.lag;
        self.stands(match (seen, max_lag) {
            (Seen { in_recovery: false, .. }, _) => Standing::Primary,
            (Seen { is_foreign: true, .. }, _) => Standing::Foreign,
            (Seen { lag: None, .. }, Some(_)) => Standing::Unknown,
            (Seen { lag: Some(lag), .. }, Some(most)) if lag > most => Standing::Behind,
            _ => Standing::Fit,
        })
    }

    /// Nobody answered a check, or a session's connection. True as above.
    pub(super) fn failed(&mut self, why: String) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.lag = None;
        if self.failures < FAILURES {
            return false;
        }
        let was_down = matches!(self.standing, Standing::Down(_));
        self.stands(Standing::Down(why)) && !was_down
    }

    fn stands(&mut self, standing: Standing) -> bool {
        let changed = self.standing != standing;
        self.standing = standing;
        changed
    }

    /// The order in which replicas are asked for; `None` for those that get no sessions. `bounded` tells whether their lag
    /// is: then nobody goes where it is not known.
    pub(super) const fn rank(&self, bounded: bool) -> Option<u8> {
        match (&self.standing, self.failures, self.lag) {
            (Standing::Unknown, ..) if bounded => None,
            (Standing::Fit, 0, Some(_)) => Some(0),
            (Standing::Fit | Standing::Unknown, 0, _) => Some(1),
            (Standing::Fit | Standing::Unknown, ..) => Some(2),
            _ => None,
        }
    }

    /// Never checked to an end.
    pub(super) const fn is_new(&self) -> bool {
        matches!(self.standing, Standing::Unknown) && self.checks == 0
    }

    /// A check came to its end, whatever it found.
    pub(super) const fn checked(&mut self) {
        self.checks = self.checks.saturating_add(1);
    }

    /// How long until the next check.
    pub(super) fn wait(&self, interval: Duration) -> Duration {
        match self.failures.checked_sub(FAILURES) {
            None => interval,
            Some(more) => {
                let longest = LONGEST_WAIT.max(interval);
                interval.checked_mul(2_u32.saturating_pow(more)).unwrap_or(longest).min(longest)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVEL: Seen = Seen { in_recovery: true, is_foreign: false, lag: Some(Duration::ZERO) };
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn who_does_not_answer_three_times_gets_no_sessions_until_it_answers() {
        let mut health = Health::default();
        assert_eq!((health.rank(false), health.rank(true)), (Some(1), None));
        assert!(health.answered(LEVEL, None));
        assert_eq!(health.rank(true), Some(0));
        for (rank, wait, told) in
            [(Some(2), 1, false), (Some(2), 1, false), (None, 1, true), (None, 2, false), (None, 4, false)]
        {
            assert_eq!(health.failed("gone".into()), told);
            assert_eq!((health.rank(true), health.wait(SECOND)), (rank, wait * SECOND));
        }
        (0..100).for_each(|_| assert!(!health.failed("gone".into())));
        assert_eq!(health.wait(SECOND), LONGEST_WAIT);
        assert_eq!(health.standing.shown(), "down: gone");
        assert!(health.answered(LEVEL, None));
        assert_eq!((health.rank(true), health.wait(SECOND)), (Some(0), SECOND));
    }

    #[test]
    fn what_is_behind_or_unknown_or_no_replica_gets_no_sessions() {
        let lag = |lag| Seen { lag, ..LEVEL };
        for (seen, most, standing, rank) in [
            (lag(Some(SECOND)), Some(SECOND), Standing::Fit, Some(0)),
            (lag(Some(2 * SECOND)), Some(SECOND), Standing::Behind, None),
            (lag(Some(2 * SECOND)), None, Standing::Fit, Some(0)),
            (lag(None), Some(SECOND), Standing::Unknown, None),
            (lag(None), None, Standing::Fit, Some(1)),
            (Seen { in_recovery: false, ..LEVEL }, None, Standing::Primary, None),
            (Seen { is_foreign: true, ..LEVEL }, None, Standing::Foreign, None),
        ] {
            let mut health = Health::default();
            health.answered(seen, most);
            assert_eq!(health.rank(most.is_some()), rank, "{seen:?}");
            assert_eq!(health.standing, standing, "{seen:?}");
        }
    }
}
