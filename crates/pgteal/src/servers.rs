//! Finds PostgreSQL server distributions on this machine. Knows paths only; it starts nothing.

use std::path::{Path, PathBuf};

use crate::config::Env;

/// One unpacked distribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Major version.
    pub major: u32,
    /// Its `bin` directory, with `postgres`, `initdb` and `pg_ctl`.
    pub bindir: PathBuf,
}

/// Directories that hold one distribution per major version, in the order they are looked at:
/// `PGTEAL_PG_DIR`, `/var/cache/pgteal/pg`, `~/.cache/pgteal/pg`, `/usr/lib/postgresql`.
#[must_use]
pub fn roots(env: &Env) -> Vec<PathBuf> {
    let cache = env
        .get("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env.get("HOME").map(|home| Path::new(home).join(".cache")))
        .map(|cache| cache.join("pgteal/pg"));
    [
        env.get("PGTEAL_PG_DIR").map(PathBuf::from),
        Some(PathBuf::from("/var/cache/pgteal/pg")),
        cache,
        Some(PathBuf::from("/usr/lib/postgresql")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// All distributions, newest first; of one major version only the first found.
#[must_use]
pub fn all(env: &Env) -> Vec<Distribution> {
    let mut found: Vec<Distribution> = Vec::new();
    for root in roots(env) {
        for entry in std::fs::read_dir(&root).into_iter().flatten().flatten() {
            let Some(major) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let bindir = entry.path().join("bin");
            let complete =
                ["postgres", "initdb", "pg_ctl"].iter().all(|program| bindir.join(program).exists());
            if complete && !found.iter().any(|distribution| distribution.major == major) {
                found.push(Distribution { major, bindir });
            }
        }
    }
    found.sort_by_key(|distribution| std::cmp::Reverse(distribution.major));
    found
}

/// The distribution of one major version.
#[must_use]
pub fn find(env: &Env, major: u32) -> Option<Distribution> {
    all(env).into_iter().find(|distribution| distribution.major == major)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_first_root_wins_and_half_distributions_do_not_count() {
        let (first, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let make = |dir: PathBuf, programs: &[&str]| {
            std::fs::create_dir_all(&dir).unwrap();
            for program in programs {
                std::fs::write(dir.join(program), "").unwrap();
            }
        };
        let whole = ["postgres", "initdb", "pg_ctl"];
        make(first.path().join("97/bin"), &whole);
        make(first.path().join("98/bin"), &["initdb"]);
        make(home.path().join("pgteal/pg/97/bin"), &whole);
        make(home.path().join("pgteal/pg/99/bin"), &whole);
        let env: Env = [
            ("PGTEAL_PG_DIR", first.path().to_str().unwrap()),
            ("XDG_CACHE_HOME", home.path().to_str().unwrap()),
        ]
        .into_iter()
        .collect();
        let ours: Vec<_> = all(&env).into_iter().filter(|distribution| distribution.major > 90).collect();
        assert_eq!(
            ours,
            [
                Distribution { major: 99, bindir: home.path().join("pgteal/pg/99/bin") },
                Distribution { major: 97, bindir: first.path().join("97/bin") },
            ]
        );
    }
}
