//! The lock file beside the journal: one process drives at a time. It goes with the process, however that ends.
//! Refuses to break a lock: who is dead holds none.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pgteal_saga::JournalError;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The longest note about the holder that is read back, in bytes.
const MAX_NOTE: u64 = 200;

/// The held lock.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the journal at `journal`, or says who has it.
    pub(super) fn take(journal: &Path) -> Result<Self, JournalError> {
        let path = path_of(journal);
        let place = journal.display().to_string();
        let failed = |error: std::io::Error| refused(&path, &place, &error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(JournalError::Locked { place: place.clone(), holder: holder(&mut file) });
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        // Only for the message of whoever comes second; a full disk must not keep anybody from unwinding.
        let note = format!("process {} since {}", std::process::id(), jiff::Timestamp::now());
        let noted = file.set_len(0).and_then(|()| file.write_all(note.as_bytes()));
        if let Err(error) = noted {
            tracing::debug!(lock = %path.display(), %error, "the lock's holder could not be noted");
        }
        Ok(Self { _file: file })
    }
}

/// Who drives over the journal at `journal` now, if anybody does. Takes no lock for that, not even for an instant: a
/// controller that begins just then would be turned away.
#[must_use]
pub fn at_work(journal: &Path) -> Option<String> {
    let mut file = File::open(path_of(journal)).ok()?;
    let inode = file.metadata().ok()?.ino();
    let note = holder(&mut file);
    let held = std::fs::read_to_string("/proc/locks").ok()?;
    held.lines().any(|line| is_held_by(line, inode, &note)).then_some(note)
}

/// Whether a line of proc_locks(5) is the lock on this file, held by who has left this note:
/// `1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF`.
fn is_held_by(line: &str, inode: u64, note: &str) -> bool {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", process, file, ..] = fields.as_slice() else { return false };
    file.rsplit(':').next() == Some(inode.to_string().as_str())
        && note.starts_with(&format!("process {process} "))
}

fn path_of(journal: &Path) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}

fn holder(file: &mut File) -> String {
    let mut note = String::new();
    let read = file.rewind().and_then(|()| file.take(MAX_NOTE).read_to_string(&mut note));
    if read.is_err() || note.is_empty() { "another process".into() } else { note }
}

fn refused(path: &Path, place: &str, error: &std::io::Error) -> JournalError {
    use std::io::ErrorKind as K;
    let what = format!("{}: {error}", path.display());
    match error.kind() {
        K::StorageFull | K::QuotaExceeded => JournalError::Full { place: place.to_owned() },
        K::PermissionDenied | K::ReadOnlyFilesystem | K::NotFound | K::NotADirectory => {
            JournalError::ReadOnly { place: place.to_owned(), what }
        }
        _ => JournalError::Io { place: place.to_owned(), what },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn whoever_drives_is_seen_without_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("journal.db");
        assert_eq!(at_work(&journal), None);
        let lock = Lock::take(&journal).unwrap();
        let seen = at_work(&journal).unwrap();
        assert!(seen.starts_with(&format!("process {} since ", std::process::id())), "{seen}");
        drop(lock);
        assert_eq!(at_work(&journal), None);
    }
}
