//! pgbench -S: its command line, what it prints and what it logs. Owns the reading of both; refuses a run in which a
//! single transaction failed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::arena::{Arena, DATABASE};

const LOG: &str = "transactions";

/// How much longer than its time pgbench may take: connections, the last transactions.
const END_LIMIT: Duration = Duration::from_secs(60);

/// pgbench's `--protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Simple,
    Extended,
    Prepared,
}

/// When a run is over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Seconds(u32),
    /// Transactions of each client.
    Transactions(u32),
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) protocol: Protocol,
    pub(crate) clients: u32,
    /// Connect for each transaction (`-C`).
    pub(crate) reconnect: bool,
    /// Log the time of each transaction.
    pub(crate) log: bool,
    pub(crate) user: &'static str,
    pub(crate) until: Until,
}

/// What a run gave.
#[derive(Debug, PartialEq)]
pub(crate) struct Report {
    pub(crate) transactions: u64,
    pub(crate) tps: f64,
    /// Of each transaction, in microseconds, sorted; empty without a log.
    pub(crate) latencies: Vec<u64>,
}

impl Protocol {
    pub(crate) const ALL: [Protocol; 3] = [Protocol::Simple, Protocol::Extended, Protocol::Prepared];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Simple => "simple",
            Protocol::Extended => "extended",
            Protocol::Prepared => "prepared",
        }
    }
}

impl Run {
    /// Runs it against a port of this machine.
    pub(crate) async fn against(self, arena: &Arena, port: u16) -> Result<Report> {
        let (limit, until) = match self.until {
            Until::Seconds(seconds) => {
                (Duration::from_secs(seconds.into()), ["-T".into(), seconds.to_string()])
            }
            Until::Transactions(number) => (Duration::ZERO, ["-t".into(), number.to_string()]),
        };
        // A second thread helps when there are clients for it; the machine is the server's and the proxy's too.
        let mut program = arena
            .command("pgbench")
            .args(["-n", "-S", "-M", self.protocol.name(), "-c", &self.clients.to_string()])
            .args(["-j", &self.clients.min(2).to_string()])
            .args(until)
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", self.user]);
        if self.reconnect {
            program = program.arg("-C");
        }
        if self.log {
            program = program.args(["-l", "--log-prefix", LOG]);
        }
        let output = program.arg(DATABASE).run(limit + END_LIMIT).await?;
        ensure!(output.status.success(), "pgbench ended with {}: {}", output.status, output.stderr.trim());
        let mut report =
            read(&output.stdout).with_context(|| format!("pgbench said {}", output.stdout.trim()))?;
        if self.log {
            report.latencies = take_logs(arena.scratch.path())?;
            let logged = report.latencies.len() as u64;
            ensure!(logged == report.transactions, "{logged} logged of {} transactions", report.transactions);
        }
        Ok(report)
    }
}

impl Report {
    /// The smallest time that `share` of all transactions did not exceed, in microseconds.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        let rank = (self.latencies.len() as f64 * share).ceil() as usize;
        self.latencies.get(rank.max(1) - 1).map_or(f64::NAN, |time| *time as f64)
    }
}

/// What pgbench 15 and later print at the end.
fn read(text: &str) -> Result<Report> {
    let value = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
        let rest = lines.next().with_context(|| format!("there is no {name:?}"))?;
        let word = rest.trim_start_matches([':', '=', ' ']).split([' ', '/']).next().unwrap_or_default();
        Ok::<&str, anyhow::Error>(word)
    };
    let transactions: u64 = value("number of transactions actually processed")?.parse()?;
    let failed: u64 = value("number of failed transactions")?.parse()?;
    ensure!(failed == 0, "{failed} transactions failed");
    ensure!(transactions > 0, "there was no transaction");
    Ok(Report { transactions, tps: value("tps")?.parse()?, latencies: Vec::new() })
}

/// Reads the logs of a run and removes them.
fn take_logs(dir: &Path) -> Result<Vec<u64>> {
    let mut latencies = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(LOG) {
            let text = std::fs::read_to_string(entry.path())?;
            latencies.extend(text.lines().map(latency).collect::<Result<Vec<_>>>()?);
            std::fs::remove_file(entry.path())?;
        }
    }
    latencies.sort_unstable();
    Ok(latencies)
}

/// One line: client, number, microseconds (or a word if it failed), script, second and microsecond of its end
/// (PostgreSQL docs, pgbench, "Per-Transaction Logging").
fn latency(line: &str) -> Result<u64> {
    match line.split_whitespace().nth(2).map(str::parse) {
        Some(Ok(time)) => Ok(time),
        _ => bail!("pgbench logged {line:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "pgbench (18.0)\ntransaction type: <builtin: select only>\nnumber of clients: 8\n\
        number of transactions actually processed: 24042\nnumber of failed transactions: 0 (0.000%)\n\
        latency average = 0.998 ms\ninitial connection time = 11.7 ms\n\
        tps = 8015.25 (without initial connection time)\n";

    #[test]
    fn what_pgbench_prints_is_read() {
        let report = read(SAID).unwrap();
        assert_eq!((report.transactions, report.tps), (24_042, 8015.25));
        let of_each =
            SAID.replace("24042", "800/800").replace("without initial connection", "including reconnection");
        assert_eq!(read(&of_each).unwrap().transactions, 800);
    }

    #[test]
    fn a_run_with_a_failure_or_without_a_word_of_them_is_refused() {
        let cases = [
            (SAID.replace(": 0 (0.000%)", ": 3 (0.012%)"), "3 transactions failed"),
            (SAID.replace(": 24042", ": 0"), "there was no transaction"),
            (SAID.replace("number of failed", "a number of failed"), "there is no \"number of failed"),
            (SAID.replace("tps", "tpm"), "there is no \"tps\""),
        ];
        for (said, expected) in cases {
            let error = read(&said).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let report = |latencies: Vec<u64>| Report { transactions: 1, tps: 1.0, latencies };
        let cases = [
            (vec![7], 0.5, 7.0),
            (vec![1, 2, 3, 4], 0.5, 2.0),
            ((1..=1000).collect(), 0.99, 990.0),
            ((1..=10).collect(), 0.99, 10.0),
        ];
        for (latencies, share, expected) in cases {
            assert_eq!(report(latencies).percentile(share), expected);
        }
        assert!(report(Vec::new()).percentile(0.5).is_nan());
    }

    #[test]
    fn logs_are_read_once_and_a_failed_transaction_is_no_time() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("transactions.7"), "0 1 90 0 10 5\n0 2 80 0 10 6\n").unwrap();
        std::fs::write(dir.path().join("transactions.7.1"), "1 1 85 0 10 5\n").unwrap();
        std::fs::write(dir.path().join("other"), "0 1 1 0 10 5\n").unwrap();
        assert_eq!(take_logs(dir.path()).unwrap(), [80, 85, 90]);
        assert_eq!(take_logs(dir.path()).unwrap(), [0_u64; 0]);
        assert!(latency("0 1 failed 0 10 5").is_err());
        assert!(latency("nonsense").is_err());
    }
}
