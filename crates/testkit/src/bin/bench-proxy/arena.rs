//! The server everybody leads to, and a directory for everybody's files. Owns data and roles; refuses to know who
//! stands in front.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use pgteal_testkit::{Cluster, Distribution, Program, ProgramBuilder, Scratch};

/// The database of all cases.
pub(crate) const DATABASE: &str = "bench";

/// Whom the server lets in without a question, and whom it asks for a password.
pub(crate) const TRUSTED: &str = "postgres";
pub(crate) const ASKED: &str = "asked";
const PASSWORD: &str = "the benchmark's own";

/// The server's version: the newest there is.
const MAJOR: u16 = 18;

/// pgbench's scale: a million accounts.
const SCALE: &str = "10";

/// COPY out of `big` gives this many bytes: two million lines of 250.
pub(crate) const COPY_BYTES: f64 = 500e6;
const BIG: &str = "CREATE UNLOGGED TABLE big AS SELECT 10000000 + g AS id, \
    repeat(md5(g::text), 7) || left(md5(g::text), 16) AS filler FROM generate_series(1, 2000000) g";

/// A tool that works on a whole database.
const TOOL_LIMIT: Duration = Duration::from_secs(120);

/// A server with data, and what does not belong to it.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) server: Cluster,
    pub(crate) scratch: Arc<Scratch>,
}

impl Arena {
    /// A server whose memory holds all data of all cases: a table larger than a quarter of it would be read through a
    /// small ring of buffers.
    pub(crate) async fn build() -> Result<Arena> {
        let server = Cluster::builder(MAJOR)
            .name("server")
            .set("shared_buffers", "2560MB")
            .set("max_connections", "300")
            .set("wal_level", "replica")
            .set("max_wal_size", "8GB")
            .set("checkpoint_timeout", "1h")
            .set("autovacuum", "off")
            .set("password_encryption", "scram-sha-256")
            .hba(&format!("local all {ASKED} scram-sha-256"))
            .hba(&format!("host all {ASKED} all scram-sha-256"))
            .start()
            .await?;
        let arena = Arena { server, scratch: Arc::new(Scratch::new()?) };
        arena.server.sql(&format!("CREATE DATABASE {DATABASE}")).await?;
        let conninfo = arena.server.conninfo(DATABASE);
        arena.tool("pgbench", &["-i", "-q", "-s", SCALE, &conninfo]).await?;
        let role = format!(
            "CREATE ROLE {ASKED} LOGIN PASSWORD '{}'; GRANT pg_read_all_data TO {ASKED}",
            quoted(PASSWORD)
        );
        arena.server.sql_in(DATABASE, &role).await?;
        arena.server.sql_in(DATABASE, "SELECT count(*) FROM pgbench_accounts").await?;
        arena.write_passfile()?;
        arena.server.sql("CHECKPOINT").await?;
        Ok(arena)
    }

    /// Makes the table of the COPY case if it is not there.
    pub(crate) async fn fill_big(&self) -> Result<()> {
        let there = self.server.sql_in(DATABASE, "SELECT to_regclass('big') IS NOT NULL").await?;
        if there != "t" {
            self.server.sql_in(DATABASE, BIG).await?;
            self.server.sql_in(DATABASE, "VACUUM ANALYZE big").await?;
            self.server.sql("CHECKPOINT").await?;
        }
        self.server.sql_in(DATABASE, "SELECT count(*) FROM big").await?;
        Ok(())
    }

    /// What the server keeps of [`ASKED`]'s password.
    pub(crate) async fn secret(&self) -> Result<String> {
        let query = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{ASKED}'");
        let secret = self.server.sql(&query).await?;
        ensure!(secret.starts_with("SCRAM-SHA-256$"), "the server keeps no SCRAM secret of {ASKED}");
        Ok(secret)
    }

    /// One of the distribution's programs, in the directory of the benchmark; it finds the password in a file.
    pub(crate) fn command(&self, name: &str) -> ProgramBuilder {
        let from: &Distribution = self.server.distribution();
        let program =
            Program::file(from.bin().join(name)).dir(&self.scratch).env("PGPASSFILE", self.file("passfile"));
        match from.lib() {
            Some(lib) => program.env("LD_LIBRARY_PATH", lib),
            None => program,
        }
    }

    /// Runs one of them to its end.
    pub(crate) async fn tool(&self, name: &str, args: &[&str]) -> Result<String> {
        let output = self.command(name).args(args).run(TOOL_LIMIT).await?;
        ensure!(output.status.success(), "{name} {args:?} ended with {}: {}", output.status, output.stderr);
        Ok(output.stdout)
    }

    /// A file of the benchmark.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// The password of a user, for our own driver.
    pub(crate) fn password(user: &str) -> &'static str {
        if user == ASKED { PASSWORD } else { "" }
    }

    /// libpq reads no file that others can read.
    fn write_passfile(&self) -> Result<()> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(self.file("passfile"));
        writeln!(file.context("passfile")?, "*:*:*:{ASKED}:{PASSWORD}")?;
        Ok(())
    }
}

fn quoted(text: &str) -> String {
    text.replace('\'', "''")
}
