//! Which suites there are. Owns their names and order; refuses to know how one is run.

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;
use pgteal_testkit::{Output, Program, ProgramBuilder};

use crate::place::Place;
use crate::{Outcomes, asyncpg, node_postgres, psql, psycopg};

/// Before each line that is ours and not a test's.
const MARK: &str = "@@\t";

/// Tests that a driver comes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// PostgreSQL's regression scripts, by psql.
    Psql,
    /// asyncpg's.
    Asyncpg,
    /// psycopg's.
    Psycopg,
    /// node-postgres's.
    NodePostgres,
}

impl Suite {
    /// In the order in which they run.
    pub(crate) const ALL: [Self; 4] = [Self::Psql, Self::Asyncpg, Self::Psycopg, Self::NodePostgres];

    /// As in `differences.toml` and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Psql => "psql",
            Self::Asyncpg => "asyncpg",
            Self::Psycopg => "psycopg",
            Self::NodePostgres => "node-postgres",
        }
    }

    /// The major version of the server, where the suite belongs to one.
    pub(crate) fn major(self) -> Option<u16> {
        (self == Self::Psql).then_some(psql::MAJOR)
    }

    /// What becomes of the tests whose names contain one of `only`; of all where it is empty.
    pub(crate) async fn run(self, place: &Place, only: &[String]) -> Result<Outcomes> {
        match self {
            Self::Psql => psql::run(place, only).await,
            Self::Asyncpg => asyncpg::run(place, only).await,
            Self::Psycopg => psycopg::run(place, only).await,
            Self::NodePostgres => node_postgres::run(place, only).await,
        }
    }
}

/// Our script `script`, run by `program`, led to `place`.
pub(crate) fn led(program: &str, script: &str, place: &Place) -> ProgramBuilder {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers").join(script);
    let program = Program::file(program).arg(script);
    let program = program.env("PGHOST", "127.0.0.1").env("PGPORT", place.port().to_string());
    program.env("PGUSER", "postgres").env("PGDATABASE", "postgres").env("LC_ALL", "C.UTF-8")
}

/// What such a script has told of each test.
pub(crate) fn told(output: &Output) -> Outcomes {
    let lines = output.stdout.lines().filter_map(|line| line.strip_prefix(MARK)?.rsplit_once('\t'));
    lines.map(|(name, outcome)| (name.to_owned(), outcome.to_owned())).collect()
}
