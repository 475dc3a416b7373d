//! Owns what a judge may look at: the answers to the check's own questions, and the facts about the deployment that
//! every judge needs. Refuses to know where they came from.

use std::collections::BTreeMap;

use pgteal_postgres::Version;
use serde_json::{Map, Value};

use super::finding::{Finding, Severity, Spot, Waiver};
use crate::deployment::{DeploymentId, Side};

/// What is known of green before and after it exists.
#[derive(Debug, Clone, Default)]
pub struct GreenFacts {
    /// Its version.
    pub version: Option<Version>,
    /// Extensions that can be created there, with their default version; none when that cannot be known.
    pub extensions: Option<BTreeMap<String, String>>,
    /// Free bytes on the file system that will hold green; none when that cannot be known.
    pub free_bytes: Option<u64>,
    /// Whether an empty green is expected (before `up` has begun to fill it).
    pub must_be_empty: bool,
}

/// What every judge may know.
#[derive(Debug, Clone)]
pub struct Context {
    /// Our deployment, once it has a name.
    pub deployment: Option<DeploymentId>,
    /// The databases that take part.
    pub databases: Vec<String>,
    /// Blue's version.
    pub blue: Version,
    /// Green.
    pub green: GreenFacts,
    /// The role that the tool connects as.
    pub tool_role: String,
    /// Table synchronisation workers per subscription.
    pub copy_workers: u32,
    /// Recorded exceptions.
    pub waivers: Vec<Waiver>,
    /// The day on which waivers are judged.
    pub today: jiff::civil::Date,
}

impl Context {
    /// Green's version, when it is older than blue's.
    #[must_use]
    pub fn older_green(&self) -> Option<Version> {
        self.green.version.filter(|green| green.major < self.blue.major)
    }
}

/// One row of an answer.
#[derive(Debug, Clone, Default)]
pub struct Fact(pub Map<String, Value>);

impl Fact {
    /// A column as text; a column that is missing or null is empty.
    pub fn text(&self, column: &str) -> String {
        match self.0.get(column) {
            Some(Value::String(s)) => s.clone(),
            None | Some(Value::Null) => String::new(),
            Some(other) => other.to_string(),
        }
    }

    /// A column as a whole number; 0 when it is not one.
    pub fn number(&self, column: &str) -> i64 {
        match self.0.get(column) {
            Some(Value::Number(n)) => n.as_i64().unwrap_or(0),
            Some(Value::String(s)) => s.parse().unwrap_or(0),
            _ => 0,
        }
    }

    /// A column as a truth value; false when it is not one.
    pub fn flag(&self, column: &str) -> bool {
        matches!(self.0.get(column), Some(Value::Bool(true)))
    }
}

/// The answer to one question at one place.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Which of the check's questions, from 0.
    pub look: usize,
    /// Where it was put.
    pub spot: Spot,
    /// The rows.
    pub facts: Vec<Fact>,
}

/// All answers to one check's questions.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// In the order in which they came.
    pub answers: Vec<Answer>,
}

impl Evidence {
    /// The rows that answer question `look`, each with the place it was found at.
    pub fn of(&self, look: usize) -> impl Iterator<Item = (&Spot, &Fact)> {
        let mine = self.answers.iter().filter(move |a| a.look == look);
        mine.flat_map(|a| a.facts.iter().map(|f| (&a.spot, f)))
    }
}

impl Spot {
    /// The whole cluster of a side.
    pub fn cluster(side: Side) -> Self {
        Self { side, database: None }
    }
}

impl Finding {
    /// A finding with neither remedy nor hint.
    pub fn new(
        check: &str,
        severity: Severity,
        spot: &Spot,
        object: impl Into<String>,
        what: impl Into<String>,
        consequence: impl Into<String>,
    ) -> Self {
        Self {
            check: check.to_owned(),
            severity,
            spot: spot.clone(),
            object: object.into(),
            what: what.into(),
            consequence: consequence.into(),
            next: None,
            remedy: None,
            waived: None,
        }
    }

    /// With the id of the advice.
    #[must_use]
    pub fn next(mut self, hint: &str) -> Self {
        self.next = Some(hint.to_owned());
        self
    }

    /// With a text that settles it.
    #[must_use]
    pub fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = Some(text.into());
        self
    }
}
