//! The public stream: every event as it happens, and fleeting progress between them.
//! Its readers cannot write.

use serde::Serialize;
use tokio::sync::broadcast;

use crate::event::Event;
use crate::ids::RunId;

/// How far a step has come. Not journaled; may be lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The run.
    pub run: String,
    /// The step.
    pub step: String,
    /// The part of the step, such as one table; `None` for the step as a whole.
    pub item: Option<String>,
    /// What is being done or waited for, with the last status seen.
    pub message: String,
    /// Units done.
    pub done: Option<u64>,
    /// Units in all, if known.
    pub total: Option<u64>,
    /// What is counted: `bytes`, `rows`, `tables`.
    pub unit: &'static str,
}

/// Is told of everything, in order, and must not block.
pub trait Observer: Send + Sync {
    /// An event happened. It is in the journal; the success of a step inside the section comes there with the next event.
    fn event(&self, run: &RunId, event: &Event);
    /// A step has come further.
    fn progress(&self, progress: &Progress);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _run: &RunId, _event: &Event) {}
    fn progress(&self, _progress: &Progress) {}
}

/// One item of the stream.
#[derive(Debug, Clone)]
pub enum Update {
    /// An event of a run.
    Event(RunId, Event),
    /// Progress of a step.
    Progress(Progress),
}

/// An [`Observer`] with any number of readers. One that falls behind by more than the capacity misses updates, is
/// told so by [`broadcast::error::RecvError::Lagged`], and can load the journal.
#[derive(Debug, Clone)]
pub struct Feed(broadcast::Sender<Update>);

impl Feed {
    /// A feed that keeps the last `capacity` updates for slow readers.
    pub fn new(capacity: usize) -> Self {
        Self(broadcast::channel(capacity.max(1)).0)
    }

    /// A reader of everything from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Update> {
        self.0.subscribe()
    }
}

impl Observer for Feed {
    fn event(&self, run: &RunId, event: &Event) {
        // No reader is no error.
        let _ = self.0.send(Update::Event(run.clone(), event.clone()));
    }

    fn progress(&self, progress: &Progress) {
        let _ = self.0.send(Update::Progress(progress.clone()));
    }
}
