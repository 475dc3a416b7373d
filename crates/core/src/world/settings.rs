//! Owns the limits of a run and what is done when one is met. Refuses to know where they are written down.

use std::time::Duration;

use crate::checks::Waiver;

/// What happens to client transactions that are still open when the drain budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDrain {
    /// Wait until the deadline of the cutover, then unwind.
    Wait,
    /// End them with SQLSTATE 57P01 and go on.
    Terminate,
    /// Unwind at once.
    Abort,
}

/// What happens to client sessions that hold what cannot be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPinned {
    /// End them with SQLSTATE 57P01 at the repoint.
    End,
    /// Wait, with nobody held, until there are none; unwind when that takes too long.
    Wait,
    /// Unwind at once.
    Abort,
}

/// The limits of a run. All come from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// From the hold to the repoint; when it passes before the point of no return, everything is put back.
    pub deadline: Duration,
    /// How long clients are held for transactions that are still open; half of it is the age up to which a
    /// moment is calm enough to begin.
    pub drain_budget: Duration,
    /// What happens when the budget is spent.
    pub on_drain: OnDrain,
    /// What happens to sessions that cannot be moved.
    pub on_pinned: OnPinned,
    /// How long to wait for a calm moment before acting by policy.
    pub calm_wait: Duration,
    /// Lag above which a switchover does not begin, in bytes of WAL.
    pub max_lag_bytes: u64,
    /// WAL that our slots may make a server retain, in bytes, before the run stops.
    pub wal_fuse_bytes: u64,
    /// A trial marker must come back within this before a hold begins.
    pub trial_bound: Duration,
    /// How long catching up may take without any progress.
    pub stall_bound: Duration,
    /// How many tables are copied at once.
    pub copy_workers: u32,
    /// How many indexes are built at once.
    pub index_jobs: usize,
    /// Findings that the operator has decided to live with.
    pub waivers: Vec<Waiver>,
}

impl Settings {
    /// The age of the oldest client transaction up to which a moment is calm: half of the drain budget, because one just
    /// under the budget when looked at would use it up.
    #[must_use]
    pub fn calm_below(&self) -> Duration {
        self.drain_budget / 2
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(3),
            drain_budget: Duration::from_millis(500),
            on_drain: OnDrain::Abort,
            on_pinned: OnPinned::End,
            calm_wait: Duration::from_secs(60),
            max_lag_bytes: 16 << 20,
            wal_fuse_bytes: 16 << 30,
            trial_bound: Duration::from_millis(250),
            stall_bound: Duration::from_secs(120),
            copy_workers: 2,
            index_jobs: 2,
            waivers: Vec::new(),
        }
    }
}
