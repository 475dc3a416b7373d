//! Owns the order of writes to the state file: one at a time, each on top of the last, so that an epoch never puts an
//! old route back. Refuses to know why something is written.

use std::sync::{Mutex, PoisonError};

use crate::route::Side;
use crate::state_file::{Saved, StateFile, StateFileError};

/// The state file and what it says.
#[derive(Debug)]
pub(crate) struct Recorder {
    file: StateFile,
    written: Mutex<Saved>,
}

impl Recorder {
    /// A recorder over an open file that says this.
    pub(crate) const fn new(file: StateFile, says: Saved) -> Self {
        Self { file, written: Mutex::new(says) }
    }

    /// Writes an epoch with the route that is in force.
    pub(crate) fn epoch(&self, epoch: u64) -> Result<(), StateFileError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let saved = Saved { epoch, ..*written };
        if written.epoch < epoch {
            self.file.write(saved)?;
            *written = saved;
        }
        Ok(())
    }

    /// Writes a route.
    pub(crate) fn write(&self, route: Side, epoch: u64) -> Result<(), StateFileError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let saved = Saved { route, epoch };
        self.file.write(saved)?;
        *written = saved;
        Ok(())
    }

    /// Makes what was written survive the machine. Blocks for the disk.
    pub(crate) fn sync(&self) -> Result<(), StateFileError> {
        self.file.sync()
    }
}
