//! One round: build, prepare, load, cut over, count. Owns what is measured and how; refuses to know who cuts over.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

use crate::arena::{Arena, DATABASE};
use crate::case::{Case, OPEN_BEFORE, OPEN_FOR};
use crate::contender::{Contender, Endpoint, Step};
use crate::disk::Disk;
use crate::load::{Load, Seen, now_us};

/// How long the load goes on after the cutover is expected to have ended; stalls are looked for in the first second.
const AFTER: Duration = Duration::from_secs(6);
const LOOK_AFTER_US: u64 = 1_000_000;

/// What all contenders of a case share.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) case: Case,
    pub(crate) rate: u32,
    pub(crate) warm_up: Duration,
}

/// What one round gave.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Round {
    pub(crate) case: Case,
    pub(crate) contender: &'static str,
    /// Longest client stall around the cutover, schedule lag included.
    pub(crate) stall_ms: f64,
    /// The same in the second before it: what the machine does by itself.
    pub(crate) calm_ms: f64,
    /// The longest flush of one page that the disk took around the cutover, as `stall_ms`.
    pub(crate) flush_ms: f64,
    /// From the call to its return.
    pub(crate) cutover_ms: f64,
    pub(crate) steps: Vec<Step>,
    /// Confirmed transactions.
    pub(crate) acked: u64,
    pub(crate) errors: u64,
    /// Confirmed transactions that green does not have, and those it has more than once.
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    /// What clients complained about, the first few.
    pub(crate) complaints: Vec<String>,
}

pub(crate) async fn run(mut contender: Box<dyn Contender>, settings: &Settings) -> Result<Round> {
    let case = settings.case;
    let arena = Arena::build(settings.from, settings.to, case).await.context("two servers with data")?;
    let endpoint = contender.prepare(&arena).await.context("prepare")?;

    let open = if case == Case::OpenTransaction { OPEN_FOR } else { Duration::ZERO };
    let seconds = (settings.warm_up + open + open + AFTER).as_secs();
    let disk = Disk::watch(&arena)?;
    let mut load = Load::start(&arena, &endpoint, settings.rate, seconds)?;
    tokio::time::sleep(settings.warm_up).await;
    let opened = (case == Case::OpenTransaction).then(|| hold_open(&endpoint));
    if opened.is_some() {
        tokio::time::sleep(OPEN_BEFORE).await;
    }

    let (from_us, began) = (now_us()?, Instant::now());
    let steps = contender.cutover(&arena).await.context("cutover")?;
    let (to_us, cutover_ms) = (now_us()?, began.elapsed().as_secs_f64() * 1e3);
    ensure!(load.is_running(), "the load ended before the cutover did, after {cutover_ms:.0} ms");

    let mut seen = load.finish(&arena).await.context("load")?;
    let flushes = disk.finish().await?;
    let until_us = to_us + LOOK_AFTER_US;
    if let Some(opened) = opened
        && let Err(error) = opened.await?
    {
        seen.errors += 1;
        seen.complaints.push(format!("the long transaction: {error:#}"));
    }
    let (lost, doubled) = count(&arena, &mut seen).await.context("count what green has")?;
    seen.complaints.truncate(5);
    Ok(Round {
        case,
        contender: contender.name(),
        stall_ms: seen.longest_ms(from_us, until_us),
        calm_ms: seen.longest_ms(from_us - 1_000_000, from_us - 200_000),
        flush_ms: flushes.longest_ms(from_us, until_us),
        cutover_ms,
        steps,
        acked: seen.acked.len() as u64,
        errors: seen.errors,
        lost,
        doubled,
        complaints: seen.complaints,
    })
}

/// One client's long transaction, through the endpoint like all others.
fn hold_open(endpoint: &Endpoint) -> JoinHandle<Result<()>> {
    let conninfo = format!("host={} port={} user=postgres dbname={DATABASE}", endpoint.host, endpoint.port);
    tokio::spawn(async move {
        let (client, connection) = tokio_postgres::connect(&conninfo, NoTls).await?;
        tokio::spawn(connection);
        client.batch_execute("BEGIN; UPDATE held SET n = n + 1 WHERE id = 1").await?;
        tokio::time::sleep(OPEN_FOR).await;
        client.batch_execute("COMMIT").await?;
        Ok(())
    })
}

/// Every confirmed transaction left one row in the history, and all sums agree.
async fn count(arena: &Arena, seen: &mut Seen) -> Result<(u64, u64)> {
    let counts = "SELECT (SELECT count(*) FROM pgbench_history),
        (SELECT sum(delta) FROM pgbench_history) IS NOT DISTINCT FROM (SELECT sum(bbalance) FROM pgbench_branches),
        (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(bbalance) FROM pgbench_branches),
        (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches)";
    let found = arena.green.sql_in(DATABASE, counts).await?;
    let (rows, sums) = found.trim().split_once('|').with_context(|| format!("green answered {found:?}"))?;
    if sums != "t|t|t" {
        seen.errors += 1;
        seen.complaints.push(format!("sums on green disagree: {sums}"));
    }
    let (rows, acked) = (rows.parse::<u64>()?, seen.acked.len() as u64);
    Ok((acked.saturating_sub(rows), rows.saturating_sub(acked)))
}

impl Round {
    /// From the end of what came before `first` to the end of `last`; `None` for a contender without these steps.
    pub(crate) fn between(&self, first: &str, last: &str) -> Option<f64> {
        let at = |name: &str| self.steps.iter().position(|step| step.name == name);
        let steps = self.steps.get(at(first)?..=at(last)?)?;
        Some(steps.iter().map(|step| step.ms).sum())
    }
}

impl std::fmt::Display for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Round {
            contender, stall_ms, calm_ms, flush_ms, cutover_ms, acked, errors, lost, doubled, ..
        } = self;
        write!(
            f,
            "{contender}: longest stall {stall_ms:.0} ms (before {calm_ms:.0}, disk {flush_ms:.0}), cutover {cutover_ms:.0} ms ["
        )?;
        let steps: Vec<String> =
            self.steps.iter().map(|step| format!("{} {:.1}", step.name, step.ms)).collect();
        write!(f, "{}], {acked} acked, {errors} errors, {lost} lost, {doubled} doubled", steps.join(", "))?;
        self.complaints.iter().try_for_each(|complaint| write!(f, "\n    {complaint}"))
    }
}
