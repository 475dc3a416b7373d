//! Owns the shape of a check and the list of all checks. Refuses to know how a look is made: `sweep` does that.

use std::ops::RangeInclusive;

use super::evidence::{Context, Evidence};
use super::finding::Finding;

/// Where a question is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Once, on blue.
    Blue,
    /// In every database of blue that takes part.
    BlueDatabases,
    /// Once, on green, if it runs.
    Green,
    /// In every database that green has, if it runs.
    GreenDatabases,
}

/// One question: a SELECT without parameters that runs on every version of the check's range.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Where it is put.
    pub at: Place,
    /// The SELECT. Its rows reach the judge as JSON objects, column by column.
    pub sql: &'static str,
}

/// One entry of the catalogue.
#[derive(Debug, Clone)]
pub struct Check {
    /// The name everywhere: configuration, JSON, `pgteal explain`.
    pub id: &'static str,
    /// What is looked at, as a short noun phrase.
    pub title: &'static str,
    /// The majors of blue that can have it.
    pub versions: RangeInclusive<u32>,
    /// The questions, in the order in which the judge counts them.
    pub looks: &'static [Look],
    /// Turns the answers into findings. Pure.
    pub judge: fn(&Evidence, &Context) -> Vec<Finding>,
}

/// Every major that can be blue or green.
pub const EVERY_VERSION: RangeInclusive<u32> = 14..=18;

/// The catalogue, in the order in which it is shown.
pub fn catalogue() -> Vec<Check> {
    let mut all = Vec::new();
    all.extend(super::cluster::all());
    all.extend(super::replication::all());
    all.extend(super::data::all());
    all.extend(super::roles::all());
    all.extend(super::green::all());
    all
}
