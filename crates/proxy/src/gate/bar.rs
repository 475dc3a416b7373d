//! Owns why nobody may be held at this gate for a time: its process is being taken over, or one before it still has sessions,
//! which are not behind this gate; and why a process cannot be taken over. Refuses to know processes.

use std::sync::atomic::Ordering::Relaxed;

use super::{Gate, GateError, Hold, Phase};

/// Why nobody may be held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bar {
    /// The process is being taken over, or has been.
    #[error("another process takes over from this one")]
    Leaving,
    /// The process before is not gone.
    #[error(
        "the proxy that this one took over from (pid {pid}) still serves {connections} connections, which it alone could hold; \
         it ends when they have left, or when its limits.takeover_drain_ms are over"
    )]
    Predecessor {
        /// Its process.
        pid: u32,
        /// How many it still serves.
        connections: usize,
    },
    /// One that served before is not gone, and does not speak with this one.
    #[error(
        "a proxy that served before this one has not ended yet, and it alone could hold the clients that it has; it ends within \
         its limits.shutdown_ms"
    )]
    Draining,
}

/// The process before, as long as it says how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Former {
    pub(crate) pid: u32,
    /// How many it still serves, those of processes before it included.
    pub(crate) connections: usize,
}

/// What bars.
#[derive(Debug, Default)]
pub(super) struct Bars {
    leaving: bool,
    former: Option<Former>,
    draining: bool,
    /// The last hold ended by its limit, and nobody has released since.
    left_off: Option<Hold>,
}

impl Bars {
    pub(super) fn check(&self) -> Result<(), GateError> {
        match (self.leaving, self.former, self.draining) {
            (true, _, _) => Err(Bar::Leaving.into()),
            (_, Some(Former { pid, connections }), _) => Err(Bar::Predecessor { pid, connections }.into()),
            (_, _, true) => Err(Bar::Draining.into()),
            _ => Ok(()),
        }
    }

    /// A hold came to its limit.
    pub(super) fn left_off(&mut self, hold: Hold) {
        self.left_off = Some(hold);
    }

    /// Somebody released.
    pub(super) fn released(&mut self) {
        self.left_off = None;
    }
}

impl Gate {
    /// Lets nobody be held from now on.
    ///
    /// # Errors
    /// [`GateError::Held`] when somebody is; [`GateError::LeftOff`] when a hold came to its limit and its switchover may be about
    /// to go on: with a predecessor it could not.
    pub(crate) fn stand_down(&self) -> Result<(), GateError> {
        let mut control = self.lock();
        if let Phase::Held(hold) = &control.phase {
            return Err(GateError::Held { epoch: hold.epoch, run: hold.run.clone() });
        }
        if let Some(hold) = &control.bars.left_off {
            return Err(GateError::LeftOff { epoch: hold.epoch, run: hold.run.clone() });
        }
        control.bars.leaving = true;
        Ok(())
    }

    /// Takes [`Gate::stand_down`] back.
    pub(crate) fn stand_up(&self) {
        self.lock().bars.leaving = false;
    }

    /// The process before this one as it says it is, or it says nothing any more.
    pub(crate) fn follow(&self, former: Option<Former>) {
        self.lock().bars.former = former;
    }

    /// Whether a process before this one, whichever, has not ended.
    pub(crate) fn follow_unheard(&self, draining: bool) {
        self.lock().bars.draining = draining;
    }

    /// The process before this one, as long as it says how it is.
    pub(crate) fn former(&self) -> Option<Former> {
        self.lock().bars.former
    }

    /// How many connections processes before this one have, as far as they say; `None` when there is no such process.
    pub(crate) fn of_predecessor(&self) -> Option<usize> {
        let control = self.lock();
        let said = control.bars.former.map(|former| former.connections);
        said.or_else(|| control.bars.draining.then_some(0))
    }

    /// Whether anybody may be held.
    ///
    /// # Errors
    /// [`GateError::Barred`].
    pub(crate) fn may_hold(&self) -> Result<(), GateError> {
        self.lock().bars.check()
    }

    /// As [`Gate::claim`], by who is about to hold: an epoch is claimed here only as long as nobody takes over.
    ///
    /// # Errors
    /// [`GateError::Barred`] or [`GateError::Stale`].
    pub(crate) fn claim_to_hold(&self, epoch: u64) -> Result<bool, GateError> {
        let mut control = self.lock();
        control.bars.check()?;
        Self::claimed(&mut control, epoch)
    }

    /// What the process before knew of the side that transactions go to.
    pub(crate) fn inherit(&self, at_risk: bool) {
        self.at_risk.store(at_risk, Relaxed);
    }
}
