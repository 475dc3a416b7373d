//! The two servers of one round and the tools to work on them. Owns their data and settings; refuses to know how
//! clients are moved.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use pgteal_testkit::{Cluster, Distribution, Program, Scratch};

use crate::case::Case;

/// The database of the load.
pub(crate) const DATABASE: &str = "bench";

/// pgbench's scale: a million accounts.
const SCALE: &str = "10";

/// A tool that works on a whole database.
const TOOL_LIMIT: Duration = Duration::from_secs(120);

/// Blue with its data, green running and empty, and a directory for everything else.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) blue: Cluster,
    pub(crate) green: Cluster,
    pub(crate) scratch: Arc<Scratch>,
}

impl Arena {
    pub(crate) async fn build(from: u16, to: u16, case: Case) -> Result<Arena> {
        let blue = start("blue", from).await?;
        let green = start("green", to).await?;
        let arena = Arena { blue, green, scratch: Arc::new(Scratch::on_disk()?) };
        arena.blue.sql(&format!("CREATE DATABASE {DATABASE}")).await?;
        let conninfo = arena.blue.conninfo(DATABASE);
        arena.tool(arena.blue.distribution(), "pgbench", &["-i", "-q", "-s", SCALE, &conninfo]).await?;
        case.fill(&arena.blue).await?;
        arena.blue.sql("CHECKPOINT").await?;
        Ok(arena)
    }

    /// Runs one of a distribution's programs to its end.
    pub(crate) async fn tool(&self, from: &Distribution, name: &str, args: &[&str]) -> Result<String> {
        let program = command(from, name).args(args).dir(&self.scratch);
        let output = program.run(TOOL_LIMIT).await?;
        ensure!(output.status.success(), "{name} {args:?} ended with {}: {}", output.status, output.stderr);
        Ok(output.stdout)
    }

    /// A file of this round.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }
}

/// One of a distribution's programs with its own libraries.
pub(crate) fn command(from: &Distribution, name: &str) -> pgteal_testkit::ProgramBuilder {
    let program = Program::file(from.bin().join(name));
    match from.lib() {
        Some(lib) => program.env("LD_LIBRARY_PATH", lib),
        None => program,
    }
}

/// Durable servers; no checkpoint falls into a round by itself.
async fn start(name: &str, major: u16) -> Result<Cluster> {
    let builder = Cluster::builder(major).name(name).on_disk();
    let settings = [
        ("shared_buffers", "512MB"),
        ("max_wal_size", "8GB"),
        ("checkpoint_timeout", "1h"),
        ("max_locks_per_transaction", "1024"),
        ("wal_retrieve_retry_interval", "100ms"),
    ];
    Ok(settings.iter().fold(builder, |builder, (name, value)| builder.set(name, value)).start().await?)
}
