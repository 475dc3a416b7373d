//! The demo's own directory and ports, and that nothing of it stays behind.

use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use pgteal_core::providers::OsUser;

use crate::errors::Failure;

/// A directory below the system's temporary one. Removed by [`Place::remove`], and when dropped unless kept.
#[derive(Debug)]
pub struct Place {
    root: PathBuf,
    keep: bool,
}

impl Place {
    /// Makes the directory. Servers get a part of it that belongs to `owner`.
    ///
    /// # Errors
    /// What the system says.
    pub fn make(owner: &OsUser, keep: bool) -> Result<Self, Failure> {
        let root = std::env::temp_dir().join(format!("pgteal-demo-{}", std::process::id()));
        let place = Self { root, keep };
        // Others must be able to pass through: the servers run as another user when we are root.
        place.directory(&place.root, 0o711)?;
        place.directory(&place.servers(), 0o711)?;
        if rustix::process::geteuid().is_root() {
            chown(place.servers(), Some(owner.uid), Some(owner.gid))
                .map_err(|error| place.failed("make", &error))?;
        }
        Ok(place)
    }

    fn directory(&self, path: &Path, mode: u32) -> Result<(), Failure> {
        std::fs::DirBuilder::new().mode(mode).create(path).map_err(|error| self.failed("make", &error))
    }

    fn failed(&self, verb: &'static str, error: &std::io::Error) -> Failure {
        Failure::File { verb, path: self.root.clone(), reason: error.to_string() }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The part that belongs to the servers' user.
    #[must_use]
    pub fn servers(&self) -> PathBuf {
        self.root.join("servers")
    }

    /// Writes a file for us alone.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, Failure> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.root.join(name);
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| self.failed("write", &error))?;
        Ok(path)
    }

    /// Removes the directory; its servers must have ended.
    pub fn remove(&mut self) {
        if !self.keep {
            // Nothing is left to try when this fails; the path tells what it is.
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Free TCP ports of this machine, all different.
///
/// # Errors
/// The system has none.
pub fn free_ports<const N: usize>() -> Result<[u16; N], Failure> {
    let failed =
        |error: std::io::Error| Failure::System { doing: "find a free port", reason: error.to_string() };
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
        *port = listener.local_addr().map_err(failed)?.port();
        held.push(listener);
    }
    Ok(ports)
}
