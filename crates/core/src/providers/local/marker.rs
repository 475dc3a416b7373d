//! Owns the file that says whose a data directory is and whether it is finished. Refuses to know how it is made.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::providers::{Prepared, ProviderError, Result, file};

/// How far the making has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// Begun; what is there is worth nothing.
    Making,
    /// Finished.
    Ready,
}

/// The content of `<data_dir>.pgteal.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// Version of this file's layout.
    pub(super) format: u32,
    /// The deployment that the directory belongs to.
    pub(super) deployment: String,
    /// How far the making has come.
    pub(super) stage: Stage,
    /// Directories that did not exist before and go with the data directory, outermost first.
    pub(super) made: Vec<PathBuf>,
    /// What was carried and left out.
    pub(super) prepared: Prepared,
}

impl Marker {
    pub(super) const FORMAT: u32 = 1;

    fn path(data_dir: &Path) -> PathBuf {
        let mut name = data_dir.as_os_str().to_owned();
        name.push(".pgteal.json");
        PathBuf::from(name)
    }

    pub(super) fn read(data_dir: &Path) -> Result<Option<Self>> {
        let path = Self::path(data_dir);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(file("reading", &path)(e)),
        };
        let marker: Result<Self, _> = serde_json::from_slice(&bytes);
        match marker {
            Ok(marker) if marker.format == Self::FORMAT => Ok(Some(marker)),
            Ok(marker) => Err(Self::unusable(&path, &format!("its format is {}", marker.format))),
            Err(e) => Err(Self::unusable(&path, &e.to_string())),
        }
    }

    fn unusable(path: &Path, reason: &str) -> ProviderError {
        ProviderError::Foreign { object: format!("file {}", path.display()), reason: reason.to_owned() }
    }

    /// Replaces the file as a whole, durably: whoever reads it after a crash sees the old or the new one.
    pub(super) fn write(&self, data_dir: &Path) -> Result<()> {
        let path = Self::path(data_dir);
        let fresh = path.with_extension("json.new");
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::other);
        let write = |bytes: Vec<u8>| {
            let mut out = std::fs::File::create(&fresh)?;
            out.write_all(&bytes)?;
            out.sync_all()?;
            std::fs::rename(&fresh, &path)?;
            path.parent().map_or(Ok(()), |p| std::fs::File::open(p)?.sync_all())
        };
        text.and_then(write).map_err(file("writing", &path))
    }

    pub(super) fn remove(data_dir: &Path) -> Result<()> {
        let path = Self::path(data_dir);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(file("removing", &path)(e)),
            _ => Ok(()),
        }
    }
}
