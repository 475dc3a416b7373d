//! Owns the order of writes to the state file: one at a time, each on top of the last, so that an epoch never puts an
//! old route back. Refuses to know why something is written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::route::Side;
use crate::state_file::{Saved, StateFile, StateFileError};

/// The state file and what it says.
#[derive(Debug)]
pub(crate) struct Recorder {
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    saved: Saved,
    file: File,
}

impl Recorder {
    /// A recorder over an open file that says this.
    pub(crate) fn new(file: StateFile, says: Saved) -> Self {
        Self { written: Mutex::new(Written { saved: says, file: File::Ours(Arc::new(file)) }) }
    }

    /// The open file, for the process that takes over.
    pub(crate) fn share(&self) -> Result<std::fs::File, StateFileError> {
        self.written().file.ours()?.share()
    }

    /// Another process is about to write: nothing is written here until [`Recorder::resume`].
    pub(crate) fn retire(&self) {
        let mut written = self.written();
        if let File::Ours(file) = &written.file {
            written.file = File::Lent(Arc::clone(file));
        }
    }

    /// Takes [`Recorder::retire`] back.
    pub(crate) fn resume(&self) {
        let mut written = self.written();
        if let File::Lent(file) = &written.file {
            written.file = File::Ours(Arc::clone(file));
        }
    }

    /// Another process writes: the file is closed here, so that its lock is that process's alone.
    pub(crate) fn close(&self) {
        self.written().file = File::Theirs;
    }

    /// Writes an epoch with the route that is in force.
    pub(crate) fn epoch(&self, epoch: u64) -> Result<(), StateFileError> {
        let mut written = self.written();
        let saved = Saved { epoch, ..written.saved };
        if written.saved.epoch < epoch { Self::put(&mut written, saved) } else { Ok(()) }
    }

    /// Writes a route.
    pub(crate) fn write(&self, route: Side, epoch: u64) -> Result<(), StateFileError> {
        Self::put(&mut self.written(), Saved { route, epoch })
    }

    fn put(written: &mut Written, saved: Saved) -> Result<(), StateFileError> {
        written.file.ours()?.write(saved)?;
        written.saved = saved;
        Ok(())
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what was written survive the machine. Blocks for the disk.
    pub(crate) fn sync(&self) -> Result<(), StateFileError> {
        // Not under the lock: nobody waits for a disk.
        let file = self.written().file.ours().cloned()?;
        file.sync()
    }
}

/// Whose the state file is.
#[derive(Debug)]
enum File {
    Ours(Arc<StateFile>),
    /// Ours again unless another process takes over.
    Lent(Arc<StateFile>),
    Theirs,
}

impl File {
    fn ours(&self) -> Result<&Arc<StateFile>, StateFileError> {
        match self {
            Self::Ours(file) => Ok(file),
            Self::Lent(_) | Self::Theirs => Err(StateFileError::HandedOver),
        }
    }
}
