//! Owns the file in which route and epoch survive the process. Refuses to know what they mean. A hold is never
//! written: a proxy that starts again is open.
//!
//! Two lines of fixed length, each a JSON object with a number and a checksum; the valid one with the higher number
//! counts. A write goes over the line that does not count: one small `pwrite`, a few microseconds in the middle of a
//! cutover, safe against the death of the process at any point, and never waiting for a disk. Against the death of the
//! machine the file is synced right afterwards, off the path.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::route::Side;

/// The version of the file's form.
const VERSION: u32 = 1;
/// Bytes of one line, its newline included.
const LINE: usize = 128;

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The side clients go to.
    pub route: Side,
    /// The highest epoch seen.
    pub epoch: u64,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    number: u64,
    route: Side,
    epoch: u64,
    check: String,
}

impl Stored {
    fn new(number: u64, saved: Saved) -> Self {
        let check = check(number, saved);
        Self { version: VERSION, number, route: saved.route, epoch: saved.epoch, check }
    }

    fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.resize(LINE - 1, b' ');
        line.push(b'\n');
        line
    }

    /// Reads a line; `None` when it was torn or is not ours.
    fn read(line: &[u8]) -> Option<Self> {
        let stored: Self = serde_json::from_slice(line).ok()?;
        let saved = Saved { route: stored.route, epoch: stored.epoch };
        (stored.version == VERSION && stored.check == check(stored.number, saved)).then_some(stored)
    }
}

fn check(number: u64, saved: Saved) -> String {
    let digest = sha2::Sha256::digest(format!("{VERSION} {number} {} {}", saved.route, saved.epoch));
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateFileError {
    /// The system refused.
    #[error("state file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error(
        "state file {path} is used by another proxy that runs (pgteal-proxy --takeover takes over from it)"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Another process has taken it over.
    #[error("the state file is another process's by now, which has taken over")]
    HandedOver,
    /// The content is not ours. Never guessed at: a wrong route is worse than no start.
    #[error("state file {path} has no valid line of version {VERSION}")]
    Content {
        /// The file.
        path: PathBuf,
    },
}

/// The open file.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    file: File,
    /// The number of the line that counts.
    number: AtomicU64,
}

impl StateFile {
    /// Opens the file and says what is in it; makes it with `first` when there is none.
    ///
    /// # Errors
    /// When the system refuses, or when the file is there and has no line that can be believed.
    pub fn open(path: &Path, first: Saved) -> Result<(Self, Saved), StateFileError> {
        let io = |source| StateFileError::Io { path: path.to_owned(), source };
        if !path.exists() {
            create(path, first).map_err(io)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(io)?;
        Self::read(path, file)
    }

    /// As [`StateFile::open`], as the only process that has the file. The system forgets that when the last descriptor of this
    /// opening is closed, so it goes to whom that is passed on.
    ///
    /// # Errors
    /// As there, and [`StateFileError::InUse`] when another process has it.
    pub(crate) fn open_alone(path: &Path, first: Saved) -> Result<(Self, Saved), StateFileError> {
        let (this, _) = Self::open(path, first)?;
        this.file.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => StateFileError::InUse { path: path.to_owned() },
            fs::TryLockError::Error(source) => this.io(source),
        })?;
        // What counts is what the other one said last.
        Self::read(path, this.file)
    }

    /// Takes the open file that another process had, with its lock, and says what is in it.
    ///
    /// # Errors
    /// As [`StateFile::open`].
    pub(crate) fn inherit(path: &Path, file: File) -> Result<(Self, Saved), StateFileError> {
        Self::read(path, file)
    }

    fn read(path: &Path, file: File) -> Result<(Self, Saved), StateFileError> {
        let io = |source| StateFileError::Io { path: path.to_owned(), source };
        let mut bytes = vec![0; 2 * LINE];
        let length = file.read_at(&mut bytes, 0).map_err(io)?;
        bytes.truncate(length);
        let newest = bytes.chunks(LINE).filter_map(Stored::read).max_by_key(|stored| stored.number);
        let Some(newest) = newest else { return Err(StateFileError::Content { path: path.to_owned() }) };
        let saved = Saved { route: newest.route, epoch: newest.epoch };
        Ok((Self { path: path.to_owned(), file, number: AtomicU64::new(newest.number) }, saved))
    }

    /// The open file, for another process.
    pub(crate) fn share(&self) -> Result<File, StateFileError> {
        self.file.try_clone().map_err(|source| self.io(source))
    }

    /// Writes over the line that does not count: from now on it counts. One writer at a time.
    ///
    /// # Errors
    /// When the system refuses; what was there before then still counts.
    pub fn write(&self, saved: Saved) -> Result<(), StateFileError> {
        let number = self.number.load(SeqCst) + 1;
        let offset = if number.is_multiple_of(2) { 0 } else { LINE as u64 };
        let line = Stored::new(number, saved).line();
        self.file.write_all_at(&line, offset).map_err(|source| self.io(source))?;
        self.number.store(number, SeqCst);
        Ok(())
    }

    /// Waits until what was written is on the disk.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn sync(&self) -> Result<(), StateFileError> {
        self.file.sync_data().map_err(|source| self.io(source))
    }

    fn io(&self, source: std::io::Error) -> StateFileError {
        StateFileError::Io { path: self.path.clone(), source }
    }
}

/// Makes the file whole or not at all: beside its place, synced, renamed.
fn create(path: &Path, first: Saved) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let mut file = File::create(&beside)?;
    file.write_all(&Stored::new(0, first).line())?;
    file.write_all(&[b' '; LINE - 1])?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const FIRST: Saved = Saved { route: Side::Blue, epoch: 0 };

    #[test]
    fn what_was_written_last_counts_and_a_torn_line_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let (file, says) = StateFile::open(&path, FIRST).unwrap();
        assert_eq!(says, FIRST);
        let mut last = FIRST;
        for epoch in 1..=5 {
            let next = Saved { route: last.route.other(), epoch };
            file.write(next).unwrap();
            file.sync().unwrap();
            assert_eq!(StateFile::open(&path, FIRST).unwrap().1, next);
            // The write was cut anywhere: what was there before counts.
            let whole = fs::read(&path).unwrap();
            let newest = if epoch % 2 == 0 { 0 } else { LINE };
            for cut in [1, 20, 60, LINE - 30] {
                let mut torn = whole.clone();
                torn[newest + cut..newest + LINE - 1].fill(b'x');
                fs::write(&path, &torn).unwrap();
                assert_eq!(StateFile::open(&path, FIRST).unwrap().1, last, "epoch {epoch}, cut at {cut}");
            }
            fs::write(&path, &whole).unwrap();
            last = next;
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_another_form_is_never_guessed_at() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let line = Stored::new(7, Saved { route: Side::Green, epoch: 9 }).line();
        let good = String::from_utf8(line).unwrap();
        for text in [
            String::new(),
            "{}".into(),
            good.replace("green", "blue"),
            good.replace("\"version\":1", "\"version\":2"),
        ] {
            fs::write(&path, &text).unwrap();
            assert!(matches!(StateFile::open(&path, FIRST), Err(StateFileError::Content { .. })), "{text:?}");
        }
        fs::write(&path, good).unwrap();
        assert_eq!(StateFile::open(&path, FIRST).unwrap().1, Saved { route: Side::Green, epoch: 9 });
    }
}
