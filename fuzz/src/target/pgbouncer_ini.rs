//! The import of a `pgbouncer.ini`: what comes of it is TOML, and repeats itself.

use std::path::PathBuf;
use std::sync::LazyLock;

use crate::pgbouncer::import;

/// In memory where there is such a place: it is written anew each time.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let dir = if memory.is_dir() { memory } else { std::env::temp_dir() };
    dir.join(format!("pgteal-fuzz-{}.ini", std::process::id()))
});

pub fn run(bytes: &[u8]) {
    // Other files of this machine are none of its business.
    if bytes.windows(8).any(|some| some == b"%include") || std::fs::write(&*FILE, bytes).is_err() {
        return;
    }
    let Ok(imported) = import(&FILE) else { return };
    let read: Result<toml::Table, _> = toml::from_str(&imported.text);
    assert!(read.is_ok(), "no TOML: {:?}\n{}", read.err(), imported.text);
    assert_eq!(import(&FILE).map(|again| again.text).ok(), Some(imported.text));
}
