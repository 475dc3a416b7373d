//! Where PostgreSQL programs of one version are. Owns the search order; `cargo xtask pg` fetches them. Refuses to
//! know clusters.

use crate::unprivileged;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The majors the product supports.
pub const MAJORS: [u16; 5] = [14, 15, 16, 17, 18];

/// One unpacked PostgreSQL: `bin`, `lib`, `share`.
#[derive(Debug, Clone)]
pub struct Distribution {
    major: u16,
    version: String,
    bin: PathBuf,
    lib: Option<PathBuf>,
}

/// No usable distribution.
#[derive(Debug, thiserror::Error)]
pub enum DistributionError {
    /// The programs are in none of the known places.
    #[error("no PostgreSQL {major} in {looked} (cargo xtask pg fetches it)")]
    Missing {
        /// The major asked for.
        major: u16,
        /// The directories looked at.
        looked: String,
    },
    /// Debian's own programs are not installed.
    #[error(
        "no PostgreSQL {major} of Debian's in {looked} (package postgresql-{major}; cargo xtask test installs it)"
    )]
    NotInstalled {
        /// The major asked for.
        major: u16,
        /// The directory looked at.
        looked: String,
    },
    /// `postgres --version` did not answer.
    #[error("{program} does not run: {reason}")]
    Broken {
        /// The program.
        program: PathBuf,
        /// What it said.
        reason: String,
    },
}

impl Distribution {
    /// The fetched distribution of `major`, else Debian's own.
    ///
    /// # Errors
    /// [`DistributionError`] names the places looked at.
    pub fn find(major: u16) -> Result<Self, DistributionError> {
        let place = fetched().join(major.to_string());
        if place.join("bin/postgres").is_file() {
            return Self::at(major, place.join("bin"), Some(place.join("lib")));
        }
        Self::debian(major).map_err(|error| match error {
            DistributionError::NotInstalled { major, looked } => {
                DistributionError::Missing { major, looked: format!("{} nor {looked}", place.display()) }
            }
            other => other,
        })
    }

    /// Debian's own PostgreSQL of `major`: built with ICU, with Debian's patches.
    ///
    /// # Errors
    /// [`DistributionError`] if the package `postgresql-<major>` is not installed.
    pub fn debian(major: u16) -> Result<Self, DistributionError> {
        let bin = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
        if !bin.join("postgres").is_file() {
            return Err(DistributionError::NotInstalled { major, looked: bin.display().to_string() });
        }
        Self::at(major, bin, None)
    }

    fn at(major: u16, bin: PathBuf, lib: Option<PathBuf>) -> Result<Self, DistributionError> {
        let program = bin.join("postgres");
        let mut found = Self { major, version: String::new(), bin, lib };
        let broken = |reason: String| DistributionError::Broken { program: program.clone(), reason };
        let output =
            found.command("postgres").arg("--version").output().map_err(|e| broken(e.to_string()))?;
        if !output.status.success() {
            return Err(broken(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        // "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        found.version = said.split_whitespace().nth(2).unwrap_or_default().to_owned();
        if found.version.split('.').next() != Some(&major.to_string()) {
            return Err(broken(format!("it is {}", said.trim())));
        }
        Ok(found)
    }

    /// 14 to 18.
    #[must_use]
    pub fn major(&self) -> u16 {
        self.major
    }

    /// As the server says it, for example `18.6`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The directory of the programs.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The directory of the shared libraries when it must be named to the loader.
    #[must_use]
    pub fn lib(&self) -> Option<&Path> {
        self.lib.as_deref()
    }

    /// A command for one of its programs, run by a user whom PostgreSQL accepts (`nobody` when we are root).
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = unprivileged::command(self.bin.join(program));
        if let Some(lib) = &self.lib {
            command.env("LD_LIBRARY_PATH", lib);
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            // PGDATA, PGHOST and their like would send programs to somebody else's server.
            command.env_remove(name);
        }
        command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command
    }
}

/// The majors a test must run against: all supported ones when `PGTEAL_REQUIRE_ALL_PG` is set (a missing one then
/// fails the test), else those found on this machine.
#[must_use]
pub fn required_majors() -> Vec<u16> {
    let all = std::env::var_os("PGTEAL_REQUIRE_ALL_PG").is_some();
    MAJORS.into_iter().filter(|major| all || Distribution::find(*major).is_ok()).collect()
}

/// `PGTEAL_PG_DIR`, else the cache that `cargo xtask pg` fills.
fn fetched() -> PathBuf {
    if let Some(dir) = std::env::var_os("PGTEAL_PG_DIR") {
        return dir.into();
    }
    cache().join("pg")
}

/// Where other projects' drivers are, for tests that speak through them: `PGTEAL_DRIVERS_DIR`, else the cache that
/// `cargo xtask drivers` fills.
#[must_use]
pub fn drivers() -> PathBuf {
    std::env::var_os("PGTEAL_DRIVERS_DIR").map_or_else(|| cache().join("drivers"), PathBuf::from)
}

/// The directory for what may be kept between test runs.
pub(crate) fn cache() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/cache/pgteal");
    }
    let user = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    user.or_else(home).unwrap_or_else(std::env::temp_dir).join("pgteal")
}
