//! What a process costs, as the kernel counts it (proc(5)). Owns the reading of /proc; refuses to know whose process it is.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// How far the fine count may lie from the coarse one: a tick at each end.
const TICKS_APART: f64 = 2.0;

/// Processor time of a process since it was started, user and system.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cpu {
    /// All its threads, those that have ended included, in ticks: mostly of 10 ms, which is much for a short cell.
    ticks: u64,
    /// Each thread that lives, in nanoseconds; none where the kernel does not tell.
    threads: BTreeMap<u32, u64>,
}

impl Cpu {
    pub(crate) fn of(pid: u32) -> Result<Cpu> {
        let process = format!("/proc/{pid}");
        let path = format!("{process}/stat");
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let ticks = ticks(&text).with_context(|| format!("{path} says {text:?}"))?;
        Ok(Cpu { ticks, threads: threads(Path::new(&process)) })
    }

    /// Microseconds from an earlier moment to this one: the fine count, unless a thread has ended with what it had
    /// used.
    pub(crate) fn since(&self, before: &Cpu) -> f64 {
        let tick_us = 1e6 / rustix::param::clock_ticks_per_second() as f64;
        let coarse = self.ticks.saturating_sub(before.ticks) as f64 * tick_us;
        let used = |threads: &BTreeMap<u32, u64>| threads.values().sum::<u64>();
        let lives = before.threads.keys().all(|thread| self.threads.contains_key(thread));
        let fine = used(&self.threads).saturating_sub(used(&before.threads)) as f64 / 1e3;
        if lives && (fine - coarse).abs() <= TICKS_APART * tick_us { fine } else { coarse }
    }
}

/// Memory of a process, what it shares with others divided by their number, in bytes.
pub(crate) fn pss_bytes(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let kilobytes = pss(&text).with_context(|| format!("{path} says {text:?}"))?;
    Ok(kilobytes as f64 * 1024.0)
}

/// `utime` and `stime`, fields 14 and 15; field 2, the name in parentheses, may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// The first field of each thread's `schedstat`: nanoseconds on a processor (Linux, "Scheduler Statistics").
fn threads(process: &Path) -> BTreeMap<u32, u64> {
    let tasks = std::fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    let read = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        Some((task.file_name().to_str()?.parse().ok()?, text.split_whitespace().next()?.parse().ok()?))
    };
    tasks.filter_map(read).collect()
}

fn pss(smaps: &str) -> Option<u64> {
    let line = smaps.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 21 13 99 98 20 0 2 0 1 1 1";
        assert_eq!(ticks(stat), Some(34));
        assert_eq!(ticks("7 (a) S 1"), None);
        let smaps = "55-7f ---p 00 00:00 0   [rollup]\nRss:  1688 kB\nPss:   196 kB\nPss_Dirty: 112 kB\n";
        assert_eq!(pss(smaps), Some(196));
        assert_eq!(pss("Rss: 1 kB\n"), None);
    }

    #[test]
    fn the_fine_count_is_taken_when_it_is_whole() {
        let tick_us = 1e6 / rustix::param::clock_ticks_per_second() as f64;
        let cpu = |ticks, threads: &[(u32, f64)]| Cpu {
            ticks,
            threads: threads.iter().map(|(id, in_ticks)| (*id, (in_ticks * tick_us * 1e3) as u64)).collect(),
        };
        let before = cpu(100, &[(1, 90.0), (2, 10.0)]);
        let cases = [
            (cpu(103, &[(1, 92.0), (2, 11.5)]), 3.5, "all threads live"),
            (cpu(103, &[(1, 92.0), (2, 11.0), (3, 0.5)]), 3.5, "one more"),
            (cpu(103, &[(1, 92.0), (3, 11.5)]), 3.0, "one has ended"),
            (cpu(150, &[(1, 92.0), (2, 11.5)]), 50.0, "one began and ended meanwhile"),
            (cpu(103, &[]), 3.0, "the kernel tells no threads"),
        ];
        for (after, expected, what) in cases {
            let found = after.since(&before) / tick_us;
            assert!((found - expected).abs() < 1e-3, "{what}: {found} ticks");
        }
    }

    #[test]
    fn our_own_process_costs_something() {
        let began = std::time::Instant::now();
        let before = Cpu::of(std::process::id()).unwrap();
        while Cpu::of(std::process::id()).unwrap().since(&before) <= 1_000.0 {
            assert!(began.elapsed().as_secs() < 10, "no millisecond in 10 s of work");
        }
        assert!(pss_bytes(std::process::id()).unwrap() > 100_000.0);
    }
}
