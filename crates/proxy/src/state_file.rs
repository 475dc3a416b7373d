//! Owns the file in which route and epoch survive the process: one JSON object, replaced by rename.
//! Refuses to know what they mean. A hold is never written: a proxy that starts again is open.
//!
//! A rename is safe against the death of the process. Against the death of the machine the new content is synced
//! before the rename, which costs milliseconds; so what a repoint will need is prepared and synced at the hold, and
//! the repoint itself is one rename. The directory is synced afterwards, off the path.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::route::Side;

/// The version of the file's form.
const VERSION: u32 = 1;

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
    route: Side,
    epoch: u64,
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
    /// The content is not ours. Never guessed at: a wrong route is worse than no start.
    #[error("state file {path} is not readable as version {VERSION}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The file.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// Names the file; nothing is read yet.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reads it; `None` when there is none yet.
    ///
    /// # Errors
    /// When it is there and cannot be read or understood.
    pub fn load(&self) -> Result<Option<Saved>, StateFileError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.io(source)),
        };
        let content = |reason: String| StateFileError::Content { path: self.path.clone(), reason };
        let stored: Stored = serde_json::from_str(&text).map_err(|error| content(error.to_string()))?;
        if stored.version != VERSION {
            return Err(content(format!("version {}", stored.version)));
        }
        Ok(Some(Saved { route: stored.route, epoch: stored.epoch }))
    }

    /// Writes and syncs everything: file, rename, directory.
    ///
    /// # Errors
    /// When the system refuses; the old content is then still there.
    pub fn store(&self, saved: Saved) -> Result<(), StateFileError> {
        self.prepare(saved)?;
        self.commit(saved)?;
        self.sync_directory()
    }

    /// Writes and syncs the content beside the file, so that [`StateFile::commit`] is only a rename.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn prepare(&self, saved: Saved) -> Result<(), StateFileError> {
        let stored = Stored { version: VERSION, route: saved.route, epoch: saved.epoch };
        let text = serde_json::to_vec(&stored).map_err(|error| StateFileError::Content {
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        let beside = self.beside(saved);
        let written = File::create(&beside).and_then(|mut file| {
            file.write_all(&text)?;
            file.write_all(b"\n")?;
            file.sync_all()
        });
        written.map_err(|source| StateFileError::Io { path: beside, source })
    }

    /// Puts the prepared content in place; prepares it first if nobody did.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn commit(&self, saved: Saved) -> Result<(), StateFileError> {
        let beside = self.beside(saved);
        match fs::rename(&beside, &self.path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.prepare(saved)?;
                fs::rename(&beside, &self.path).map_err(|source| self.io(source))
            }
            Err(source) => Err(self.io(source)),
        }
    }

    /// Makes the last rename durable.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn sync_directory(&self) -> Result<(), StateFileError> {
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let synced =
            File::open(directory.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all());
        synced.map_err(|source| self.io(source))
    }

    /// Removes what was prepared for this state and never used.
    pub fn forget(&self, saved: Saved) {
        let _ = fs::remove_file(self.beside(saved));
    }

    fn beside(&self, saved: Saved) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{}.{}", saved.route, saved.epoch));
        PathBuf::from(name)
    }

    fn io(&self, source: std::io::Error) -> StateFileError {
        StateFileError::Io { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn what_was_stored_is_read_and_nothing_is_left_beside() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::new(directory.path().join("state.json"));
        assert_eq!(file.load().unwrap(), None);
        let first = Saved { route: Side::Blue, epoch: 3 };
        let second = Saved { route: Side::Green, epoch: 4 };
        file.store(first).unwrap();
        assert_eq!(file.load().unwrap(), Some(first));
        file.prepare(second).unwrap();
        assert_eq!(file.load().unwrap(), Some(first), "prepared is not committed");
        file.commit(second).unwrap();
        assert_eq!(file.load().unwrap(), Some(second));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        file.prepare(first).unwrap();
        file.forget(first);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_another_form_is_never_guessed_at() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let file = StateFile::new(path.clone());
        for text in [
            "",
            "{}",
            "{\"version\":2,\"route\":\"blue\",\"epoch\":1}",
            "{\"version\":1,\"route\":\"red\",\"epoch\":1}",
        ] {
            fs::write(&path, text).unwrap();
            assert!(matches!(file.load(), Err(StateFileError::Content { .. })), "{text:?}");
        }
        fs::write(&path, "{\"version\":1,\"route\":\"green\",\"epoch\":9}").unwrap();
        assert_eq!(file.load().unwrap(), Some(Saved { route: Side::Green, epoch: 9 }));
    }
}
