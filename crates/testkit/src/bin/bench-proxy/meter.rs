//! What a process costs, as the kernel counts it (proc(5)). Owns the reading of /proc; refuses to know whose process it is.

use anyhow::{Context, Result};

/// Processor time of a process and all its threads, those that have ended included, in microseconds. The kernel
/// counts in ticks, mostly of 10 ms.
pub(crate) fn cpu_us(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let ticks = ticks(&text).with_context(|| format!("{path} says {text:?}"))?;
    Ok(ticks as f64 * 1e6 / rustix::param::clock_ticks_per_second() as f64)
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
    fn our_own_process_costs_something() {
        let began = std::time::Instant::now();
        let before = cpu_us(std::process::id()).unwrap();
        while cpu_us(std::process::id()).unwrap() <= before {
            assert!(began.elapsed().as_secs() < 10, "no tick in 10 s of work");
        }
        assert!(pss_bytes(std::process::id()).unwrap() > 100_000.0);
    }
}
