//! How many instructions the proxy spends on a transaction, counted by valgrind's callgrind: a figure that repeats on a
//! noisy machine, so that it can be a gate. Owns the ceilings; refuses to say anything of time.

#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgteal_testkit::{Cluster, PortLease, Program, ProgramBuilder, Scratch, binary, wait_until};

/// The most instructions of user space for a transaction of one statement (`pgbench -S`), by way of asking: about five in
/// a hundred above what was counted when they were set. Whoever makes it cheaper lowers them.
const CEILINGS: [(&str, u64); 3] = [("simple", 6_450), ("extended", 8_300), ("prepared", 6_900)];

/// Clients at once: more than one core's worth, so that waking and polling for many is in the figure.
const CLIENTS: u64 = 8;
/// Transactions of each client in the two runs; what is spent on starting and logging in is in both.
const RUNS: [u64; 2] = [500, 2500];

const MAJOR: u16 = 18;
/// Callgrind makes everything some fifty times slower.
const LIMIT: Duration = Duration::from_secs(180);

#[tokio::main]
async fn main() -> Result<()> {
    ensure!(!cfg!(debug_assertions), "the ceilings are of a release build: cargo xtask bench instructions");
    let server = Cluster::builder(MAJOR).name("server").set("autovacuum", "off").start().await?;
    let pgbench = |args: &[&str]| client(&server, "pgbench", args);
    let conninfo = server.conninfo("postgres");
    let filled = pgbench(&["-i", "-q", &conninfo]).run(LIMIT).await?;
    ensure!(filled.status.success(), "pgbench -i: {}", filled.stderr);

    println!("instructions of pgteal-proxy for a transaction, pgbench -S, {CLIENTS} clients");
    let mut over = Vec::new();
    for (mode, ceiling) in CEILINGS {
        let fewer = counted(&server, mode, RUNS[0]).await?;
        let more = counted(&server, mode, RUNS[1]).await?;
        let each = more.saturating_sub(fewer) / (CLIENTS * (RUNS[1] - RUNS[0]));
        println!("{mode:<9} {each:>6}  (at most {ceiling})");
        if each > ceiling {
            over.push(mode);
        }
    }
    ensure!(
        over.is_empty(),
        "more than the ceiling: {}. If what was added is worth it, raise the ceiling and say why in the commit; else look \
         for it with callgrind_annotate",
        over.join(", ")
    );
    Ok(())
}

/// The instructions of the proxy's whole life with `transactions` of each client.
async fn counted(server: &Cluster, mode: &str, transactions: u64) -> Result<u64> {
    let scratch = Arc::new(Scratch::new()?);
    let port = PortLease::take()?;
    let (file, counts) = (scratch.path().join("proxy.toml"), scratch.path().join("counts"));
    let state = scratch.path().join("state");
    let configuration = format!(
        "listen = ['127.0.0.1:{listen}']\nstate_file = '{state}'\n\
         [blue]\nhost = '127.0.0.1'\nport = {server}\nsslmode = 'disable'\n[auth]\nmethod = 'trust'\n",
        listen = port.port(),
        state = state.display(),
        server = server.port(),
    );
    std::fs::write(&file, configuration)?;
    let mut proxy = Program::file("/usr/bin/valgrind")
        .args(["--tool=callgrind".to_owned(), format!("--callgrind-out-file={}", counts.display())])
        .arg(binary("pgteal-proxy")?)
        .arg("--config")
        .arg(&file)
        .dir(&scratch)
        .spawn()?;
    let port_text = port.port().to_string();
    wait_until("the proxy to take clients", LIMIT, async || {
        match tokio::net::TcpStream::connect(("127.0.0.1", port.port())).await {
            Ok(_) => Ok(Some(())),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
    .with_context(|| proxy.stderr())?;
    let (clients, transactions) = (CLIENTS.to_string(), transactions.to_string());
    let load = client(server, "pgbench", &["-S", "-n", "-M", mode, "-c", &clients, "-t", &transactions])
        .args(["-h", "127.0.0.1", "-p", &port_text, "-U", "postgres", "postgres"])
        .run(LIMIT)
        .await?;
    ensure!(load.status.success(), "pgbench through the proxy: {}", load.stderr);
    proxy.interrupt()?;
    proxy.wait(LIMIT).await?;
    let written = std::fs::read_to_string(&counts).with_context(|| proxy.stderr())?;
    let total = written
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .context("callgrind wrote no totals")?;
    Ok(total.trim().parse()?)
}

fn client(server: &Cluster, name: &str, args: &[&str]) -> ProgramBuilder {
    let from = server.distribution();
    let program = Program::file(from.bin().join(name)).args(args);
    match from.lib() {
        Some(lib) => program.env("LD_LIBRARY_PATH", lib),
        None => program,
    }
}
