//! Owns what verification says. Refuses to know how it was found.

use pgteal_postgres::digest::Digest;
use serde::{Deserialize, Serialize};

/// How one table turned out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Outcome {
    /// Every row is on both sides, equal.
    Matched,
    /// Rows differ for certain.
    Mismatched {
        /// How many, if the table has a key by which they can be told.
        rows: Option<u64>,
        /// The first few keys, as text.
        keys: Vec<String>,
    },
    /// No difference for certain, but so many rows were never quiet long enough to compare.
    Unsettled {
        /// Rows, or none if the table has no key by which they can be told.
        rows: Option<u64>,
    },
    /// Only one side has the table.
    Missing {
        /// The side, by the server's name, that does not have it.
        on: String,
    },
    /// Replication does not carry it, so it was not compared.
    Skipped {
        /// Why.
        why: String,
    },
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReport {
    /// The database.
    pub database: String,
    /// Schema and name.
    pub table: String,
    /// Rows on the leader when it was looked at; none if it was not.
    pub rows: Option<i64>,
    /// The leader's digest, if it was taken.
    pub digest: Option<Digest>,
    /// How it turned out.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// All tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// By database, schema and name.
    pub tables: Vec<TableReport>,
}

impl Report {
    /// The tables that differ for certain.
    pub fn mismatched(&self) -> impl Iterator<Item = &TableReport> {
        self.tables
            .iter()
            .filter(|t| matches!(t.outcome, Outcome::Mismatched { .. } | Outcome::Missing { .. }))
    }

    /// The tables of which some rows were never quiet.
    pub fn unsettled(&self) -> impl Iterator<Item = &TableReport> {
        self.tables.iter().filter(|t| matches!(t.outcome, Outcome::Unsettled { .. }))
    }

    /// Whether every table that replication carries is equal.
    pub fn is_equal(&self) -> bool {
        self.mismatched().next().is_none() && self.unsettled().next().is_none()
    }

    /// Rows that were compared.
    pub fn rows(&self) -> i64 {
        self.tables.iter().filter_map(|t| t.rows).sum()
    }
}
