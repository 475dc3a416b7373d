//! Owns the mark of processes that handed over and have not ended: each has a shared lock on a file beside the state file, which
//! the system takes back with the process. So also who comes after a dead successor, and has nobody to ask, knows of them.
//! Refuses to know who they are.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::shared::Shared;

/// How often it is looked whether they are gone.
const LOOK: Duration = Duration::from_millis(100);
/// Who looks has the lock for an instant: so often it is tried, so long apart.
const TRIES: u32 = 200;
const BREATH: Duration = Duration::from_millis(5);

fn beside(state_file: &Path) -> PathBuf {
    let mut path = state_file.as_os_str().to_owned();
    path.push(".draining");
    path.into()
}

/// The mark, until it is dropped.
pub(super) async fn mark(state_file: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(beside(state_file))?;
    for _ in 0..TRIES {
        match file.try_lock_shared() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(BREATH).await,
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Whether anybody has it.
fn is_marked(state_file: &Path) -> bool {
    let path = beside(state_file);
    match File::open(&path).map(|file| file.try_lock()) {
        Ok(Err(TryLockError::WouldBlock)) => true,
        Ok(Ok(())) => false,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Ok(Err(TryLockError::Error(error))) | Err(error) => {
            tracing::warn!(path = %path.display(), %error, "not known whether processes before this one have ended");
            false
        }
    }
}

/// Has nobody held at a gate as long as a process before this one has not ended; answers what is to be done until then.
/// To be called before anybody comes in.
pub(crate) fn wait(shared: &Arc<Shared>) -> Option<impl Future<Output = ()> + use<>> {
    if !is_marked(&shared.config.state_file) {
        return None;
    }
    shared.gate.follow_unheard(true);
    let shared = Arc::clone(shared);
    Some(async move {
        while is_marked(&shared.config.state_file) {
            tokio::time::sleep(LOOK).await;
        }
        shared.gate.follow_unheard(false);
        tracing::info!("every process before this one has ended");
    })
}
