//! Owns the order of writes to the state file: one at a time, each on top of the last, so that a slow write of an epoch
//! never puts an old route back. Refuses to know why something is written.

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
    /// A recorder over a file that says this (or that does not exist yet).
    pub(crate) const fn new(file: StateFile, says: Saved) -> Self {
        Self { file, written: Mutex::new(says) }
    }

    /// Makes an epoch durable with the route that is in force. Blocks for the disk.
    pub(crate) fn epoch(&self, epoch: u64) -> Result<(), StateFileError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.epoch < epoch {
            let saved = Saved { epoch, ..*written };
            self.file.store(saved)?;
            *written = saved;
        }
        Ok(())
    }

    /// Writes what a repoint will need beside the file. Blocks for the disk.
    pub(crate) fn prepare(&self, route: Side, epoch: u64) -> Result<(), StateFileError> {
        self.file.prepare(Saved { route, epoch })
    }

    /// Puts a route in force: one rename when it was prepared.
    pub(crate) fn route(&self, route: Side, epoch: u64) -> Result<(), StateFileError> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let saved = Saved { route, epoch };
        self.file.commit(saved)?;
        *written = saved;
        Ok(())
    }

    /// Makes the last rename durable, and removes what was prepared for nothing. Blocks for the disk.
    pub(crate) fn settle(&self, epoch: u64) -> Result<(), StateFileError> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        self.file.forget(Saved { route: written.route.other(), epoch });
        self.file.sync_directory()
    }
}
