//! PostgreSQL servers that work somewhere in a directory, whoever started them. Owns that they end in a way that
//! returns their shared memory, the one thing of a server that outlives both its processes and its directory. Refuses
//! to know why they end.

use super::Scratch;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How many looks, 5 ms apart, a server has for an immediate shutdown.
const LOOKS: u32 = 300;

/// Shuts down, immediately, every server that runs in `dir`: a postmaster that ends by itself removes its dynamic
/// shared memory and reaps its children. Those that have not ended after 1.5 s are left to SIGKILL.
#[allow(clippy::disallowed_methods, reason = "drop cannot await")]
pub(crate) fn end(dir: &Path) {
    let postmasters: Vec<Pid> = postmasters(dir, &Scratch::processes(dir));
    if postmasters.is_empty() {
        return;
    }
    // A process that stands still would not hear of it, and its postmaster would wait.
    for pid in Scratch::processes(dir) {
        let _ = kill_process(pid, Signal::CONT);
    }
    for pid in &postmasters {
        let _ = kill_process(*pid, Signal::QUIT);
    }
    for _ in 0..LOOKS {
        let left = Scratch::processes(dir);
        if !postmasters.iter().any(|pid| left.contains(pid)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Frees the System V segments of servers that were killed (line 7 of `postmaster.pid`: key and id).
pub(super) fn free_shared_memory(dir: &Path) {
    for file in pid_files(dir) {
        let text = fs::read_to_string(file).unwrap_or_default();
        if let Some(id) = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            let _ = Command::new("ipcrm").args(["-m", id]).stderr(Stdio::null()).status();
        }
    }
}

/// Those of `processes` that a `postmaster.pid` in `dir` names in its first line.
fn postmasters(dir: &Path, processes: &[Pid]) -> Vec<Pid> {
    let named = pid_files(dir).into_iter().filter_map(|file| {
        let text = fs::read_to_string(file).ok()?;
        text.lines().next()?.trim().parse().ok().and_then(Pid::from_raw)
    });
    named.filter(|pid| processes.contains(pid)).collect()
}

/// The `postmaster.pid` files in and below `dir`.
fn pid_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut queue = vec![dir.to_path_buf()];
    while let Some(dir) = queue.pop() {
        let file = dir.join("postmaster.pid");
        if file.exists() {
            files.push(file);
        } else if !dir.join("PG_VERSION").exists() {
            // Not a data directory: one may be below.
            let entries = fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.path());
            queue.extend(entries.filter(|path| path.is_dir() && !path.is_symlink()));
        }
    }
    files
}
