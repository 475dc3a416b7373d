//! Which suites there are. Owns their names and order; refuses to know how one is run.

use anyhow::Result;
use clap::ValueEnum;

use crate::place::Place;
use crate::{Outcomes, asyncpg, psql};

/// Tests that a driver comes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// PostgreSQL's regression scripts, by psql.
    Psql,
    /// asyncpg's.
    Asyncpg,
}

impl Suite {
    /// In the order in which they run.
    pub(crate) const ALL: [Self; 2] = [Self::Psql, Self::Asyncpg];

    /// As in `differences.toml` and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Psql => "psql",
            Self::Asyncpg => "asyncpg",
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
        }
    }
}
