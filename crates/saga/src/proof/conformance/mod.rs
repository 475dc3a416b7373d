//! What every journal must do, whatever it is kept in: one check a promise of [`Journal`].
//! Refuses to know how a journal is opened or damaged; a [`Subject`] does that.

mod appending;
mod keeping;
mod sample;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use crate::ids::RunId;
use crate::journal::{Journal, JournalError};
use crate::proof::bench::Report;

/// How stored events are damaged behind the journal's back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The last event is gone.
    LoseLast,
    /// An event in the middle is gone.
    LoseMiddle,
    /// A letter of an event in the middle is another.
    AlterMiddle,
    /// Two events in the middle have changed places.
    Swap,
}

impl Damage {
    /// Every sort.
    pub const ALL: [Self; 4] = [Self::LoseLast, Self::LoseMiddle, Self::AlterMiddle, Self::Swap];
}

/// One journal that can be closed, opened again and damaged. Begins empty.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Opens the journal. The one opened before was dropped.
    async fn open(&self) -> Result<Arc<dyn Journal>, JournalError>;

    /// Damages the stored events of `run`. The journal is closed.
    async fn damage(&self, run: &RunId, damage: Damage) -> Result<(), String>;
}

type Checked<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;
type Check = for<'a> fn(&'a dyn Subject) -> Checked<'a>;

/// Every check by name.
const CHECKS: [(&str, Check); 15] = [
    ("events come back in order and unchanged", |s| Box::pin(keeping::order(s))),
    ("an empty journal has no runs and no leases", |s| Box::pin(keeping::empty(s))),
    ("runs are listed with their last event", |s| Box::pin(keeping::listing(s))),
    ("everything is there after it was opened again", |s| Box::pin(keeping::reopening(s))),
    ("epochs go up, over all deployments", |s| Box::pin(keeping::epochs(s))),
    ("damage is named, not read over", |s| Box::pin(keeping::damage(s))),
    ("a large plan fits", |s| Box::pin(keeping::large(s))),
    ("an append after another event is a conflict", |s| Box::pin(appending::conditional(s))),
    ("a run is created once", |s| Box::pin(appending::twice(s))),
    ("a stale epoch changes nothing", |s| Box::pin(appending::stale(s))),
    ("an epoch nobody was given is turned away", |s| Box::pin(appending::invented(s))),
    ("events that do not fit are refused whole", |s| Box::pin(appending::malformed(s))),
    ("of several events all are appended or none", |s| Box::pin(appending::together(s))),
    ("nothing can be appended to a run that was not created", |s| Box::pin(appending::unknown(s))),
    ("of many writers exactly one wins each place", |s| Box::pin(appending::concurrent(s))),
];

/// Runs every check, each on a subject of its own.
pub async fn prove<S, F>(mut fresh: F) -> Report
where
    S: Subject,
    F: AsyncFnMut() -> Result<S, String>,
{
    let mut report = Report::default();
    for (name, check) in CHECKS {
        report.cases += 1;
        let outcome = match fresh().await {
            Ok(subject) => check(&subject).await,
            Err(error) => Err(format!("no journal to check: {error}")),
        };
        if let Err(what) = outcome {
            report.failures.push((name.to_owned(), what));
        }
    }
    report
}

async fn opened(subject: &dyn Subject) -> Result<Arc<dyn Journal>, String> {
    subject.open().await.map_err(|error| format!("it cannot be opened: {error}"))
}

fn said(error: JournalError) -> String {
    format!("unexpected: {error}")
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}
