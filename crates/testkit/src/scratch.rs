//! A private directory and every process that works in it. Owns that nothing of them is left behind: not when the
//! test fails, not when its process is killed. Refuses to know what the processes are.
//!
//! Processes are found by their working directory, which PostgreSQL's processes and all that they start have inside
//! their data directory; so no process number is ever trusted after its process may have ended.

pub(crate) mod servers;

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// How many looks until the processes of a directory count as unkillable (they are looked for every 5 ms).
const SWEEPS: u32 = 2_000;

/// Waits for its owner's end of the pipe to close, then does what `Scratch::drop` would have done. `find` compares
/// all working directories at once. Servers get a second for an immediate shutdown, in which they return their shared
/// memory; `ipcrm` frees the System V segment of those that did not.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
while read -r word; do [ "$word" = quit ] && exit 0; done
processes() {
  find /proc/[0-9]*/cwd -maxdepth 0 -lname "$1*" 2>/dev/null | sed 's|/proc/||; s|/cwd||'
}
found=$(processes "$1")
servers=
for f in $(find "$1" -name postmaster.pid 2>/dev/null); do
  pid=$(head -n 1 "$f"); for p in $found; do [ "$p" = "$pid" ] && servers="$servers $p"; done
done
if [ -n "$servers" ]; then
  kill -CONT $found 2>/dev/null
  kill -QUIT $servers 2>/dev/null
fi
n=0
while [ "$n" -lt 200 ]; do
  found=$(processes "$1")
  [ -z "$found" ] && [ "$n" -gt 1 ] && break
  if [ -z "$servers" ] || [ "$n" -ge 20 ]; then kill -9 $found 2>/dev/null; fi
  left=
  for p in $servers; do for q in $found; do [ "$p" = "$q" ] && left="$left $p"; done; done
  servers=$left
  n=$((n + 1)); sleep 0.05
done
find "$1" -name postmaster.pid 2>/dev/null | while read -r f; do
  id=$(sed -n 7p "$f" | awk '{print $2}'); [ -n "$id" ] && ipcrm -m "$id" 2>/dev/null
done
rm -rf "$1"
"#;

/// How many failed tests' logs stay.
const FAILURES: usize = 50;

/// Memory, and room in the memory file system, that must be free before tests use it as their disk.
const ROOM: u64 = 4 << 30;

/// A temporary directory, open to servers' user, removed with all its processes when dropped or when this process
/// dies. With `PGTEAL_KEEP` set the directory stays (its processes do not).
///
/// It lies in `PGTEAL_TEST_TMP` if that is set, else in `/dev/shm` when there is plenty of room, else in the system's
/// temporary directory. Making and removing the thousand files of a cluster again and again costs ext4 up to a
/// second each time, because it does not reuse inodes that were deleted a moment ago.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    watchdog: Mutex<Option<(Child, ChildStdin)>>,
}

impl Scratch {
    /// Makes the directory and its watchdog.
    ///
    /// # Errors
    /// When the directory cannot be made or `sh` cannot be started.
    pub fn new() -> io::Result<Self> {
        Self::within(&memory().unwrap_or_else(disk))
    }

    /// As [`Self::new`], never in memory: for what measures or fills a real disk.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn on_disk() -> io::Result<Self> {
        Self::within(&disk())
    }

    fn within(base: &Path) -> io::Result<Self> {
        // Short: the path of a Unix socket has room for 107 bytes.
        let dir = tempfile::Builder::new().prefix("pgteal-").tempdir_in(base)?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let path = dir.keep().canonicalize()?;
        let mut sh = Command::new("sh");
        sh.args(["-c", WATCHDOG, "pgteal-watchdog"]).arg(&path).current_dir("/");
        // Its own group: neither ctrl-C in the terminal nor the end of the test's group reaches it.
        sh.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = match sh.spawn() {
            Ok(child) => child,
            Err(error) => {
                let _ = fs::remove_dir_all(&path);
                return Err(error);
            }
        };
        let stdin = child.stdin.take();
        let watchdog = Mutex::new(stdin.map(|stdin| (child, stdin)));
        Ok(Self { path, watchdog })
    }

    /// Where it is; absolute, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The processes whose working directory is `dir` or inside it.
    pub(crate) fn processes(dir: &Path) -> Vec<Pid> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let working_here = entries.filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let cwd = fs::read_link(entry.path().join("cwd")).ok()?;
            if cwd.starts_with(dir) { Pid::from_raw(number) } else { None }
        });
        working_here.collect()
    }

    /// Kills, with SIGKILL, every process that works in `dir`, until none is left.
    ///
    /// # Errors
    /// When processes are still there after 10 s.
    #[allow(clippy::disallowed_methods, reason = "drop cannot await")]
    pub(crate) fn kill_processes(dir: &Path) -> io::Result<()> {
        for _ in 0..SWEEPS {
            let left = Self::processes(dir);
            if left.is_empty() {
                return Ok(());
            }
            for pid in left {
                // It may have ended since; then there is nothing to do.
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(io::Error::other(format!("processes in {} cannot be killed", dir.display())))
    }

    /// Copies what helps to understand a failure out of the directory; returns where it is.
    fn keep_logs(&self) -> io::Result<PathBuf> {
        let name = self.path.file_name().unwrap_or_default();
        let all = std::env::temp_dir().join("pgteal-failed");
        let kept = all.join(name);
        fs::create_dir_all(&kept)?;
        forget_oldest(&all)?;
        let mut queue = vec![self.path.clone()];
        while let Some(dir) = queue.pop() {
            for entry in fs::read_dir(&dir)?.flatten() {
                let path = entry.path();
                if entry.file_type()?.is_dir() {
                    queue.push(path);
                } else if path.extension().is_some_and(|ext| ext == "log" || ext == "out" || ext == "err") {
                    let flat =
                        path.strip_prefix(&self.path).unwrap_or(&path).to_string_lossy().replace('/', "_");
                    fs::copy(&path, kept.join(flat))?;
                }
            }
        }
        Ok(kept)
    }
}

impl Drop for Scratch {
    #[allow(clippy::print_stderr, reason = "the one place where a failed test learns where its logs are")]
    fn drop(&mut self) {
        servers::end(&self.path);
        if let Err(error) = Self::kill_processes(&self.path) {
            eprintln!("{error}");
        }
        servers::free_shared_memory(&self.path);
        if std::thread::panicking() {
            match self.keep_logs() {
                Ok(kept) => eprintln!("logs kept in {}", kept.display()),
                Err(error) => eprintln!("logs of {} could not be kept: {error}", self.path.display()),
            }
        }
        if std::env::var_os("PGTEAL_KEEP").is_some() {
            eprintln!("kept {}", self.path.display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
        let watchdog = self.watchdog.get_mut().map(Option::take).unwrap_or_default();
        if let Some((mut child, mut stdin)) = watchdog {
            let _ = stdin.write_all(b"quit\n");
            drop(stdin);
            let _ = child.wait();
        }
    }
}

/// Keeps the logs of the last [`FAILURES`] failures.
fn forget_oldest(all: &Path) -> io::Result<()> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(all)?.flatten() {
        kept.push((entry.metadata()?.modified()?, entry.path()));
    }
    kept.sort();
    for (_, oldest) in &kept[..kept.len().saturating_sub(FAILURES)] {
        // Another test process may be at it too.
        let _ = fs::remove_dir_all(oldest);
    }
    Ok(())
}

/// The chosen or the system's temporary directory; root's own is closed to the servers' user.
fn disk() -> PathBuf {
    if let Some(chosen) = std::env::var_os("PGTEAL_TEST_TMP") {
        return chosen.into();
    }
    let system = std::env::temp_dir();
    if system.starts_with("/root") { PathBuf::from("/tmp") } else { system }
}

/// The memory file system, if nobody chose another place and both it and the machine have room.
fn memory() -> Option<PathBuf> {
    if std::env::var_os("PGTEAL_TEST_TMP").is_some() {
        return None;
    }
    let place = PathBuf::from("/dev/shm");
    let room = rustix::fs::statvfs(&place).ok()?;
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = available.trim().strip_suffix(" kB")?.parse().ok()?;
    let enough = room.f_bavail * room.f_frsize >= ROOM && kilobytes * 1024 >= ROOM;
    enough.then_some(place)
}
