//! How a run is shown while it goes. Reads the public stream only; it can neither steer a run nor write its journal.

mod bars;
pub mod findings;
mod json;
mod lines;
mod rate;
pub mod runbook;
pub mod table;
pub mod timeline;

use std::collections::BTreeMap;

use pgteal_saga::{Feed, Update};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::ui::Ui;

/// The titles of steps by id.
pub type Titles = BTreeMap<String, String>;

/// Something that shows updates.
trait Show: Send {
    fn update(&mut self, update: &Update);
    /// Called once, when no more will come.
    fn close(&mut self);
}

/// A reader of the stream that shows it until it is closed.
#[derive(Debug)]
pub struct Live {
    task: JoinHandle<()>,
    done: oneshot::Sender<()>,
}

impl Live {
    /// Begins to show `feed`: bars on a terminal, plain lines otherwise, one JSON object a line with `--json`.
    #[must_use]
    pub fn start(ui: &Ui, feed: &Feed, titles: Titles) -> Self {
        let mut show: Box<dyn Show> = if ui.json() {
            Box::new(json::Json::new(ui.clone()))
        } else if ui.terminal() {
            Box::new(bars::Bars::new(ui.clone(), titles))
        } else {
            Box::new(lines::Lines::new(ui.clone(), titles))
        };
        let mut updates = feed.subscribe();
        let (done, mut closed) = oneshot::channel();
        let task = tokio::spawn(async move {
            loop {
                let update = tokio::select! {
                    biased;
                    update = updates.recv() => update,
                    _ = &mut closed => break,
                };
                match update {
                    Ok(update) => show.update(&update),
                    // The journal has what was missed; the picture goes on with what comes next.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => break,
                }
            }
            show.close();
        });
        Self { task, done }
    }

    /// Shows what is still in the stream and ends.
    pub async fn close(self) {
        // Both can only fail when the task has ended, which is what is asked for.
        let _ = self.done.send(());
        let _ = self.task.await;
    }
}
