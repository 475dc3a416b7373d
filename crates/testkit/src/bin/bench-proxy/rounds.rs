//! All rounds of one case: start everybody, take turns, measure. Owns what is measured and how; refuses to know how
//! anybody relays, and to judge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pgteal_testkit::{PortLease, Program, wait_until};

use crate::arena::{Arena, COPY_BYTES, TRUSTED};
use crate::case::{Case, Cell, Work};
use crate::contender::{Contender, Login, Running, Upstream, Wiring};
use crate::meter::{self, Cpu};
use crate::pgbench::{Protocol, Run, Until};
use crate::sample::{Measure, Sample};
use crate::{copy, idle};

/// More than any case but `idle` has at once.
const SESSIONS: usize = 100;

/// Transactions of each client before the clock starts: connections of pools, caches.
pub(crate) const WARM_UP: u32 = 50;

/// How long memory may settle after the last login: buffers are given back, timers have run.
const SETTLE: Duration = Duration::from_secs(2);

const FAKE_LIMIT: Duration = Duration::from_secs(10);

/// What is the same in all cases.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) arena: Arena,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) rounds: u32,
    /// Of each cell with pgbench.
    pub(crate) seconds: u32,
    /// Sessions of the idle case.
    pub(crate) idle: usize,
    /// Contenders reach the server over its Unix socket.
    pub(crate) socket: bool,
    /// Only cells whose name contains this.
    pub(crate) cell: Option<String>,
}

impl Plan {
    pub(crate) async fn run(&self, case: Case) -> Result<Vec<Sample>> {
        let mut cells = case.cells(self.idle);
        cells.retain(|cell| self.cell.as_ref().is_none_or(|part| cell.name.contains(part)));
        match case {
            _ if cells.is_empty() => Ok(Vec::new()),
            Case::Idle => self.idle(&cells).await,
            Case::Query | Case::Copy | Case::Connect => self.side_by_side(case, &cells).await,
        }
    }

    /// All contenders run all the time, and those whose turn it is not do nothing.
    async fn side_by_side(&self, case: Case, cells: &[Cell]) -> Result<Vec<Sample>> {
        if case == Case::Copy {
            self.arena.fill_big().await.context("the table to copy")?;
        }
        let login = match case {
            Case::Connect => Login::Scram { secret: self.arena.secret().await? },
            Case::Query | Case::Copy | Case::Idle => Login::Trust,
        };
        let server = &self.arena.server;
        let socket_dir = self.socket.then(|| server.socket_dir().to_owned());
        let upstream = Upstream { port: server.port(), socket_dir };
        let scratch = Arc::clone(&self.arena.scratch);
        let wiring = Wiring { scratch, upstream, login, sessions: SESSIONS };
        let mut all = Vec::new();
        for contender in &self.contenders {
            all.push(contender.start(&wiring).await?);
        }
        let mut samples = Vec::new();
        for round in 1..=self.rounds {
            for cell in cells {
                for running in turns(&all, round) {
                    if cell.work.leaves_out(running.contender).is_some() {
                        continue;
                    }
                    let values = self.measure(running, cell.work).await;
                    let values = values.with_context(|| {
                        format!("{}, {}, {}, round {round}", case.name(), cell.name, running.contender)
                    })?;
                    self.keep(&mut samples, case, cell, round, running.contender, values);
                }
            }
        }
        Ok(samples)
    }

    /// Memory that was ever used is not always given back, so everybody is started for each round, alone.
    async fn idle(&self, cells: &[Cell]) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for round in 1..=self.rounds {
            for cell in cells {
                for contender in turns(&self.contenders, round).copied() {
                    let Work::Idle { sessions } = cell.work else { continue };
                    if cell.work.leaves_out(contender).is_some() {
                        continue;
                    }
                    let bytes = self.rest(contender, sessions).await;
                    let bytes = bytes.with_context(|| format!("idle, {contender}, round {round}"))?;
                    let values = BTreeMap::from([(Measure::SessionBytes, bytes)]);
                    self.keep(&mut samples, Case::Idle, cell, round, contender, values);
                }
            }
        }
        Ok(samples)
    }

    fn keep(
        &self,
        samples: &mut Vec<Sample>,
        case: Case,
        cell: &Cell,
        round: u32,
        contender: Contender,
        values: BTreeMap<Measure, f64>,
    ) {
        let sample = Sample { case, cell: cell.name.clone(), round, contender, values };
        eprintln!("{round}/{} {sample}", self.rounds);
        samples.push(sample);
    }

    async fn measure(&self, running: &Running, work: Work) -> Result<BTreeMap<Measure, f64>> {
        match work {
            Work::Query { protocol, clients } => self.query(running, protocol, clients).await,
            Work::Connect { clients } => self.connect(running, clients).await,
            Work::Copy => self.copy(running).await,
            Work::Idle { .. } => bail!("idle sessions are measured alone"),
        }
    }

    async fn query(
        &self,
        running: &Running,
        protocol: Protocol,
        clients: u32,
    ) -> Result<BTreeMap<Measure, f64>> {
        // The log costs pgbench something, so only who measures latency keeps one.
        let until = Until::Seconds(self.seconds);
        let run = Run { protocol, clients, reconnect: false, log: clients == 1, user: TRUSTED, until };
        self.pgbench(running, run).await
    }

    async fn connect(&self, running: &Running, clients: u32) -> Result<BTreeMap<Measure, f64>> {
        let until = Until::Seconds(self.seconds);
        let user = crate::arena::ASKED;
        let run = Run { protocol: Protocol::Simple, clients, reconnect: true, log: false, user, until };
        self.pgbench(running, run).await
    }

    async fn pgbench(&self, running: &Running, run: Run) -> Result<BTreeMap<Measure, f64>> {
        let warm_up = if run.reconnect { 2 } else { WARM_UP };
        let before = Run { until: Until::Transactions(warm_up), log: false, ..run };
        before.against(&self.arena, running.port).await.context("before the clock starts")?;
        let began = cpu(running)?;
        let report = run.against(&self.arena, running.port).await?;
        let cpu = spent(began, running)?.map(|us| us / report.transactions as f64);
        let mut values = BTreeMap::from([(Measure::Tps, report.tps)]);
        values.extend(cpu.map(|us| (Measure::CpuUs, us)));
        if run.log {
            values.insert(Measure::P50Us, report.percentile(0.5));
            values.insert(Measure::P99Us, report.percentile(0.99));
        }
        Ok(values)
    }

    async fn copy(&self, running: &Running) -> Result<BTreeMap<Measure, f64>> {
        let began = cpu(running)?;
        let seconds = copy::run(&self.arena, running.port).await?;
        let cpu = spent(began, running)?.map(|us| us / 1e3 / (COPY_BYTES / 100e6));
        let mut values = BTreeMap::from([(Measure::MegabytesPerSecond, COPY_BYTES / 1e6 / seconds)]);
        values.extend(cpu.map(|ms| (Measure::CpuMsPer100Mb, ms)));
        Ok(values)
    }

    /// Bytes of memory that each of so many resting sessions costs a contender.
    async fn rest(&self, contender: Contender, sessions: usize) -> Result<f64> {
        let scratch = &self.arena.scratch;
        let lease = PortLease::take()?;
        let port = lease.port();
        let over = |dir| Upstream { port, socket_dir: Some(dir) };
        let socket = over(scratch.path().to_owned()).socket().context("a socket's name")?;
        let server = Program::file(std::env::current_exe()?).arg("fake-server");
        let server = server.args(["--port", &port.to_string()]).arg("--socket").arg(&socket);
        let _server = server.dir(scratch).spawn()?;
        wait_until("the stand-in server listens", FAKE_LIMIT, async || {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map(drop)
        })
        .await?;
        let socket_dir = self.socket.then(|| scratch.path().to_owned());
        let upstream = Upstream { port, socket_dir };
        let wiring = Wiring { scratch: Arc::clone(scratch), upstream, login: Login::Trust, sessions };
        let running = contender.start(&wiring).await?;
        let pid = running.pid().context("nobody is in the middle")?;
        tokio::time::sleep(SETTLE).await;
        let before = meter::pss_bytes(pid)?;
        let open = idle::open(running.port, sessions).await?;
        tokio::time::sleep(SETTLE).await;
        let after = meter::pss_bytes(pid)?;
        let ended = idle::ended(&open);
        ensure!(ended == 0, "{ended} of {sessions} sessions do not rest any more");
        Ok((after - before) / sessions as f64)
    }
}

/// Everybody, beginning with another one in each round, so that nobody always follows the same one.
fn turns<T>(all: &[T], round: u32) -> impl Iterator<Item = &T> {
    let first = round.saturating_sub(1) as usize % all.len().max(1);
    all.iter().cycle().skip(first).take(all.len())
}

/// Of whoever is in the middle.
fn cpu(running: &Running) -> Result<Option<Cpu>> {
    running.pid().map(Cpu::of).transpose()
}

/// Microseconds since `before`.
fn spent(before: Option<Cpu>, running: &Running) -> Result<Option<f64>> {
    Ok(cpu(running)?.zip(before).map(|(after, before)| after.since(&before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_the_next_one() {
        let order = |round| turns(&['a', 'b', 'c'], round).collect::<String>();
        assert_eq!([1, 2, 3, 4].map(order), ["abc", "bca", "cab", "abc"]);
        assert_eq!(turns::<char>(&[], 3).count(), 0);
    }
}
