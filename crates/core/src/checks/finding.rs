//! Owns what a check says: findings, severities, waivers and the report of one pass. Refuses to know how the facts
//! were found and how they are shown.

use serde::{Deserialize, Serialize};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing to do, or pgteal does it by itself.
    Notice,
    /// The upgrade can go on, at a cost that is named.
    Warning,
    /// The upgrade would fail or lose data: it does not begin.
    Blocker,
}

/// Where a finding was made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Spot {
    /// `blue` or `green`.
    pub side: crate::deployment::Side,
    /// The database, or none when it concerns the whole cluster.
    pub database: Option<String>,
}

/// A recorded exception: the operator knows and accepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiver {
    /// The check's id.
    pub check: String,
    /// The object as the finding names it; none waives every object of the check.
    pub object: Option<String>,
    /// Why it is accepted.
    pub reason: String,
    /// The last day on which it holds; none for always.
    pub until: Option<jiff::civil::Date>,
}

/// One result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The check's id, e.g. `wal-level`.
    pub check: String,
    /// How much it matters.
    pub severity: Severity,
    /// Where it was found.
    pub spot: Spot,
    /// The object, e.g. `table public.events` or `setting wal_level`.
    pub object: String,
    /// What was found: a fact, one sentence.
    pub what: String,
    /// What follows for the data or the clients if nothing is done: one sentence.
    pub consequence: String,
    /// Id of the advice that the command line phrases, e.g. `set-wal-level`.
    pub next: Option<String>,
    /// SQL or configuration that would settle it, when one text does for everybody.
    pub remedy: Option<String>,
    /// The reason given by the waiver that covers it; a waived blocker does not block.
    pub waived: Option<String>,
}

/// How the look of one check ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Looked at, nothing found.
    Clean,
    /// Looked at, this many findings.
    Found(usize),
    /// There was nothing to look at: the version has no such thing, or green does not exist yet.
    NotApplicable,
    /// Could not look, and why. Counts as a blocker.
    NotLooked(String),
}

/// One line per check of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckRun {
    /// The check's id.
    pub check: String,
    /// The check's title.
    pub title: String,
    /// How it ended.
    pub verdict: Verdict,
}

/// The result of one pass over the catalogue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Every check, in the order of the catalogue.
    pub checks: Vec<CheckRun>,
    /// Every finding, blockers first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The findings that stop the upgrade: blockers that no waiver covers.
    pub fn blockers(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.severity == Severity::Blocker && f.waived.is_none())
    }

    /// Whether the upgrade may begin.
    pub fn passes(&self) -> bool {
        self.blockers().next().is_none()
    }

    pub(super) fn seal(&mut self, waivers: &[Waiver], today: jiff::civil::Date) {
        for finding in &mut self.findings {
            finding.waived = waivers.iter().find(|w| w.covers(finding, today)).map(|w| w.reason.clone());
        }
        self.findings.sort_by(|a, b| {
            (b.severity, &a.check, &a.spot, &a.object).cmp(&(a.severity, &b.check, &b.spot, &b.object))
        });
    }
}

/// Whether one of `waivers` covers `finding` today.
pub(crate) fn is_waived(waivers: &[Waiver], finding: &Finding) -> bool {
    let today = jiff::Zoned::now().date();
    waivers.iter().any(|waiver| waiver.covers(finding, today))
}

impl Waiver {
    /// Whether this waiver covers `finding` on `today`.
    pub fn covers(&self, finding: &Finding, today: jiff::civil::Date) -> bool {
        self.check == finding.check
            && self.object.as_ref().is_none_or(|o| *o == finding.object)
            && self.until.is_none_or(|last| today <= last)
    }
}
