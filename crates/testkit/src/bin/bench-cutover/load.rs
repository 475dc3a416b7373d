//! The load and what its clients saw: pgbench, TPC-B-like, with its log of every transaction. Owns the reading of that
//! log; refuses to know what happened to the servers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use pgteal_testkit::Program;

use crate::arena::{Arena, DATABASE, command};
use crate::contender::Endpoint;

const CLIENTS: &str = "8";
const THREADS: &str = "2";
const LOG: &str = "transactions";

/// How long after its time pgbench may need to end.
const END_LIMIT: Duration = Duration::from_secs(60);

/// pgbench under way.
#[derive(Debug)]
pub(crate) struct Load {
    program: Program,
    seconds: u64,
}

/// What clients saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Each confirmed transaction: when it was confirmed, and how long it took since it was due (microseconds).
    pub(crate) acked: Vec<(u64, u64)>,
    /// Clients that gave up, and transactions that failed.
    pub(crate) errors: u64,
    /// What pgbench said about them.
    pub(crate) complaints: Vec<String>,
}

impl Load {
    pub(crate) fn start(arena: &Arena, endpoint: &Endpoint, rate: u32, seconds: u64) -> Result<Load> {
        let program = command(arena.blue.distribution(), "pgbench")
            .args(["-n", "-c", CLIENTS, "-j", THREADS, "-l", "--log-prefix", LOG])
            .args(["-R", &rate.to_string(), "-T", &seconds.to_string()])
            .args(["-h", &endpoint.host, "-p", &endpoint.port.to_string(), "-U", "postgres", DATABASE])
            .dir(&arena.scratch)
            .spawn()?;
        Ok(Load { program, seconds })
    }

    /// Whether clients still send.
    pub(crate) fn is_running(&mut self) -> bool {
        self.program.is_running()
    }

    /// Waits for pgbench's end and reads its log.
    pub(crate) async fn finish(mut self, arena: &Arena) -> Result<Seen> {
        self.program.wait(Duration::from_secs(self.seconds) + END_LIMIT).await?;
        let complaints = self.program.stderr();
        let complaints = complaints.lines().filter(|line| line.contains("error")).map(str::to_owned);
        let mut seen = Seen { complaints: complaints.collect(), ..Seen::default() };
        seen.errors = seen.complaints.len() as u64;
        for entry in std::fs::read_dir(arena.scratch.path())? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(LOG) {
                let text = std::fs::read_to_string(entry.path())?;
                text.lines().try_for_each(|line| seen.take_in(line))?;
            }
        }
        Ok(seen)
    }
}

impl Seen {
    /// One line: client, number, microseconds since it was due (or a word if it failed), script, second and
    /// microsecond of its end, schedule lag (PostgreSQL docs, pgbench, Per-Transaction Logging).
    fn take_in(&mut self, line: &str) -> Result<()> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let bad = || format!("pgbench logged {line:?}");
        let [_, _, time, _, second, micro, ..] = fields[..] else { anyhow::bail!(bad()) };
        let ended: u64 =
            second.parse::<u64>().with_context(bad)? * 1_000_000 + micro.parse::<u64>().with_context(bad)?;
        match time.parse() {
            Ok(time) => self.acked.push((ended, time)),
            Err(_) => self.errors += 1,
        }
        Ok(())
    }

    /// The longest any transaction took, in milliseconds, of those under way between two instants.
    pub(crate) fn longest_ms(&self, from: u64, to: u64) -> f64 {
        let under_way = self.acked.iter().filter(|(ended, time)| *ended >= from && ended - time <= to);
        under_way.map(|(_, time)| *time).max().unwrap_or(0) as f64 / 1e3
    }
}

/// Now, as pgbench's log says it.
pub(crate) fn now_us() -> Result<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stall_is_of_transactions_that_touch_the_window() {
        let mut seen = Seen::default();
        let lines = [
            "0 1 900 0 10 0 5",
            "1 1 50000 0 10 100000",
            "1 2 700000 0 9 0",
            "2 1 failed 0 10 0",
            "3 1 800 0 11 0",
        ];
        lines.iter().for_each(|line| seen.take_in(line).unwrap());
        assert_eq!((seen.acked.len(), seen.errors), (4, 1));
        assert!((seen.longest_ms(10_000_000, 10_060_000) - 50.0).abs() < 1e-9);
        assert!((seen.longest_ms(11_000_001, 12_000_000)).abs() < 1e-9);
        assert!(seen.take_in("pgbench: nonsense").is_err());
    }
}
