//! Owns why nobody may be held at this gate for a time: its process is being taken over, or one before it still has sessions,
//! which are not behind this gate. Refuses to know processes.

use super::{Gate, GateError, Phase};

/// Why nobody may be held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bar {
    /// The process is being taken over, or has been.
    #[error("another process takes over from this one")]
    Leaving,
    /// The process before is not gone.
    #[error(
        "the proxy that this one took over from still serves {connections} connections, which it alone could hold; it ends \
         when they have left, or when its limits.takeover_drain_ms are over"
    )]
    Predecessor {
        /// How many it still serves.
        connections: usize,
    },
}

/// What bars.
#[derive(Debug, Default)]
pub(super) struct Bars {
    leaving: bool,
    predecessor: Option<usize>,
}

impl Bars {
    pub(super) fn check(&self) -> Result<(), GateError> {
        match (self.leaving, self.predecessor) {
            (true, _) => Err(Bar::Leaving.into()),
            (_, Some(connections)) => Err(Bar::Predecessor { connections }.into()),
            _ => Ok(()),
        }
    }
}

impl Gate {
    /// Lets nobody be held from now on.
    ///
    /// # Errors
    /// [`GateError::Held`] when somebody is.
    pub(crate) fn stand_down(&self) -> Result<(), GateError> {
        let mut control = self.lock();
        if let Phase::Held(hold) = &control.phase {
            return Err(GateError::Held { epoch: hold.epoch, run: hold.run.clone() });
        }
        control.bars.leaving = true;
        Ok(())
    }

    /// Takes [`Gate::stand_down`] back.
    pub(crate) fn stand_up(&self) {
        self.lock().bars.leaving = false;
    }

    /// A process before this one has so many connections, or is gone.
    pub(crate) fn follow(&self, predecessor: Option<usize>) {
        self.lock().bars.predecessor = predecessor;
    }

    /// How many connections a process before this one has; `None` when there is no such process.
    pub(crate) fn of_predecessor(&self) -> Option<usize> {
        self.lock().bars.predecessor
    }

    /// Whether anybody may be held.
    ///
    /// # Errors
    /// [`GateError::Barred`].
    pub(crate) fn may_hold(&self) -> Result<(), GateError> {
        self.lock().bars.check()
    }
}
