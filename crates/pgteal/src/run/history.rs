//! Where a deployment stands, read from the runs in the journal, and what may be done next. Pure.

use pgteal_core::deployment::Side;
use pgteal_saga::journal::JournalError;
use pgteal_saga::state::{Cause, Phase, Rest, State, fold};
use pgteal_saga::{DeploymentId, Journal, RunId};
use serde::Serialize;

use crate::errors::Failure;

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Every step succeeded.
    Done,
    /// Everything was put back.
    Unwound,
    /// Its tries are used up.
    Stuck,
    /// It waits at a gate.
    Waiting,
    /// The operator stopped it.
    Stopped,
    /// Somebody drives it, or was killed while doing so.
    Open,
}

impl Fate {
    /// The word for tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unwound => "unwound",
            Self::Stuck => "stuck",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
            Self::Open => "open",
        }
    }

    /// Whether the run is not over.
    #[must_use]
    pub const fn is_open(self) -> bool {
        !matches!(self, Self::Done | Self::Unwound)
    }
}

/// One run, as far as its deployment is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The run.
    #[serde(serialize_with = "shown")]
    pub run: RunId,
    /// Its deployment.
    #[serde(serialize_with = "shown")]
    pub deployment: DeploymentId,
    /// `up`, `switch`, `back`, `finish`.
    pub kind: String,
    /// How it stands.
    pub fate: Fate,
    /// In a few words.
    pub state: String,
    /// Whether it can be undone.
    pub may_undo: bool,
    /// Whether its point of no return has started.
    pub passed: bool,
    /// Whether it is being taken back at the word of an operator.
    pub taken_back: bool,
    /// When it was created.
    pub created_at: jiff::Timestamp,
    /// When its last event happened.
    pub last_at: jiff::Timestamp,
}

fn shown<S: serde::Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

impl Entry {
    /// The entry of a folded run.
    #[must_use]
    pub fn of(run: RunId, state: &State) -> Self {
        let fate = match (state.phase(), state.rest()) {
            (Phase::Done, _) => Fate::Done,
            (Phase::Unwound(_), _) => Fate::Unwound,
            (_, Some(Rest::Stuck { .. })) => Fate::Stuck,
            (_, Some(Rest::Waiting { .. })) => Fate::Waiting,
            (_, Some(Rest::Stopped)) => Fate::Stopped,
            (_, None) => Fate::Open,
        };
        Self {
            run,
            deployment: state.plan().deployment().clone(),
            kind: state.plan().kind().to_owned(),
            fate,
            state: state.describe(),
            may_undo: state.may_undo(),
            passed: state.is_passed(),
            taken_back: matches!(state.phase(), Phase::Unwinding(Cause::Operator { .. })),
            created_at: state.created_at(),
            last_at: state.last_at(),
        }
    }
}

/// How far a deployment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// There is no deployment: none was made, or it was undone or finished.
    Nothing,
    /// `up` has begun and is not over.
    Building,
    /// Green is in step; blue serves; nobody has been moved yet.
    InStep,
    /// There was a switchover; the active side serves and the other follows.
    Switched,
    /// `finish` has begun and is not over.
    Retiring,
}

/// Where the newest deployment stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Its id.
    #[serde(serialize_with = "maybe_shown")]
    pub deployment: Option<DeploymentId>,
    /// How far it has come.
    pub stage: Stage,
    /// The side that serves.
    pub active: Side,
    /// The run that is not over, if there is one.
    pub open: Option<Entry>,
    /// The side that was retired by the last `finish`, if nothing was built since.
    pub retired: Option<Side>,
    /// The newest run of kind `up` of this deployment.
    #[serde(serialize_with = "maybe_shown")]
    pub up: Option<RunId>,
}

fn maybe_shown<S: serde::Serializer>(
    value: &Option<impl std::fmt::Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

impl Standing {
    /// The standing after these runs, oldest first.
    #[must_use]
    pub fn after(entries: &[Entry]) -> Self {
        let nothing = Self {
            deployment: None,
            stage: Stage::Nothing,
            active: Side::Blue,
            open: None,
            retired: None,
            up: None,
        };
        entries.iter().fold(nothing.clone(), |mut standing, entry| {
            if standing.deployment.as_ref() != Some(&entry.deployment) {
                // A deployment begins with its up; what came after one that was undone is over with it.
                if entry.kind != "up" {
                    return standing;
                }
                standing = Self { deployment: Some(entry.deployment.clone()), ..nothing.clone() };
            }
            // Not always the newest: an up is undone long after its end, when a switch was tried and unwound.
            if entry.fate.is_open() {
                standing.open = Some(entry.clone());
            }
            match (entry.kind.as_str(), entry.fate) {
                ("up", Fate::Done) => {
                    standing.stage = Stage::InStep;
                    standing.up = Some(entry.run.clone());
                }
                ("up", Fate::Unwound) => return nothing.clone(),
                ("finish", Fate::Done) => {
                    let active = standing.active;
                    return Self { active, retired: Some(active.other()), ..nothing.clone() };
                }
                ("up", _) => {
                    standing.stage = Stage::Building;
                    standing.up = Some(entry.run.clone());
                }
                // Past the point of no return clients are on the new side, whether or not the run is over.
                ("switch", fate) if fate == Fate::Done || (fate.is_open() && entry.passed) => {
                    (standing.stage, standing.active) = (Stage::Switched, Side::Green);
                }
                ("back", fate) if fate == Fate::Done || (fate.is_open() && entry.passed) => {
                    (standing.stage, standing.active) = (Stage::Switched, Side::Blue);
                }
                ("finish", fate) if fate.is_open() => standing.stage = Stage::Retiring,
                _ => {}
            }
            standing
        })
    }

    /// The commands that make sense now, the most likely first.
    #[must_use]
    pub fn next(&self) -> Vec<&'static str> {
        match (&self.open, self.stage, self.active) {
            (Some(open), ..) if open.may_undo => vec!["pgteal resume", "pgteal undo"],
            (Some(_), ..) => vec!["pgteal resume"],
            // The configuration's blue is retired: the next deployment needs one of its own, whose blue is what serves now.
            (None, Stage::Nothing, Side::Green) => vec!["pgteal --config next.toml init --blue CONNINFO"],
            (None, Stage::Nothing, Side::Blue) => vec!["pgteal plan", "pgteal up"],
            (None, Stage::InStep, _) => vec!["pgteal switch", "pgteal verify", "pgteal undo"],
            (None, _, Side::Green) => vec!["pgteal verify", "pgteal finish", "pgteal back"],
            (None, _, Side::Blue) => vec!["pgteal switch", "pgteal verify", "pgteal finish"],
        }
    }
}

/// All runs of the journal, oldest first.
///
/// # Errors
/// What the journal says; [`JournalError::Corrupt`] if a run tells a story that cannot be.
pub async fn read(journal: &dyn Journal) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    for summary in journal.runs().await? {
        let events = journal.load(&summary.run).await?;
        let state = fold(&events).map_err(|error| JournalError::Corrupt {
            place: format!("run {}", summary.run),
            what: error.to_string(),
        })?;
        entries.push(Entry::of(summary.run, &state));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Deployment, kind, fate.
    type Brief = (&'static str, &'static str, Fate);

    fn entry((deployment, kind, fate): &Brief) -> Entry {
        Entry {
            run: RunId::parse(&format!("{kind}-x")).unwrap(),
            deployment: DeploymentId::parse(deployment).unwrap(),
            kind: (*kind).to_owned(),
            fate: *fate,
            state: String::new(),
            may_undo: fate.is_open() && *kind == "up",
            passed: *kind != "up" && !matches!(fate, Fate::Unwound | Fate::Stopped),
            taken_back: false,
            created_at: jiff::Timestamp::UNIX_EPOCH,
            last_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_story_so_far_decides_what_comes_next() {
        use Fate::{Done, Open, Stopped, Stuck, Unwound};
        const A: &str = "aaaaaaaa";
        const B: &str = "bbbbbbbb";
        let stories: [(&str, &[Brief]); 17] = [
            ("new", &[]),
            ("up killed", &[(A, "up", Open)]),
            ("up stopped", &[(A, "up", Stopped)]),
            ("up undone", &[(A, "up", Unwound)]),
            ("up", &[(A, "up", Done)]),
            ("switch unwound", &[(A, "up", Done), (A, "switch", Unwound)]),
            ("up being undone after that", &[(A, "up", Stuck), (A, "switch", Unwound)]),
            ("up undone after that", &[(A, "up", Unwound), (A, "switch", Unwound)]),
            ("switch stopped", &[(A, "up", Done), (A, "switch", Stopped)]),
            (
                "finish on blue",
                &[(A, "up", Done), (A, "switch", Done), (A, "back", Done), (A, "finish", Done)],
            ),
            ("switch stuck", &[(A, "up", Done), (A, "switch", Stuck)]),
            ("switch", &[(A, "up", Done), (A, "switch", Done)]),
            ("back", &[(A, "up", Done), (A, "switch", Done), (A, "back", Done)]),
            ("again", &[(A, "up", Done), (A, "switch", Done), (A, "back", Done), (A, "switch", Done)]),
            ("finish killed", &[(A, "up", Done), (A, "switch", Done), (A, "finish", Open)]),
            ("finish", &[(A, "up", Done), (A, "switch", Done), (A, "finish", Done)]),
            ("another", &[(A, "up", Unwound), (B, "up", Done)]),
        ];
        let mut out = String::new();
        for (name, runs) in stories {
            let standing = Standing::after(&runs.iter().map(entry).collect::<Vec<_>>());
            let id = standing.deployment.as_ref().map_or("-", DeploymentId::as_str);
            out += &format!(
                "{name}: {id} {:?} active {} -> {}\n",
                standing.stage,
                standing.active,
                standing.next().join(", ")
            );
        }
        insta::assert_snapshot!(out);
    }
}
