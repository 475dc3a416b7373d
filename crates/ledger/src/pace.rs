//! When the next transaction of a session is due. Owns the arithmetic of the open loop; refuses to sleep.

/// A fixed timetable: a late transaction does not move those after it, so a stall is felt by each one that was due.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Microseconds between two transactions of this session; `None` runs flat out.
    interval_us: Option<f64>,
    next_us: f64,
}

impl Pace {
    /// `share` is this session's place among all, from 0 to below 1, so that sessions do not start in step.
    pub(crate) fn new(rate: Option<f64>, sessions: u32, share: f64, now_us: u64) -> Pace {
        let interval_us = rate.map(|rate| f64::from(sessions) * 1e6 / rate);
        Pace { interval_us, next_us: now_us as f64 + share * interval_us.unwrap_or(0.0) }
    }

    /// When the next transaction is due.
    pub(crate) fn due_us(&self, now_us: u64) -> u64 {
        if self.interval_us.is_some() { self.next_us as u64 } else { now_us }
    }

    /// The transaction that was due has been sent.
    pub(crate) fn advance(&mut self) {
        self.next_us += self.interval_us.unwrap_or(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_transaction_does_not_move_the_timetable() {
        let mut pace = Pace::new(Some(100.0), 2, 0.5, 1_000);
        assert_eq!(pace.due_us(0), 11_000);
        pace.advance();
        assert_eq!(pace.due_us(900_000), 31_000);
    }

    #[test]
    fn flat_out_is_due_at_once() {
        let mut pace = Pace::new(None, 2, 0.5, 1_000);
        pace.advance();
        assert_eq!(pace.due_us(5_000), 5_000);
    }
}
