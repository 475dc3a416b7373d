//! A run as JSON: one object a line, events as they stand in the journal.

use pgteal_saga::{Update, stored};
use serde_json::{Value, json};

use super::Show;
use crate::ui::Ui;

/// JSON lines.
pub(super) struct Json {
    ui: Ui,
}

impl Json {
    pub(super) const fn new(ui: Ui) -> Self {
        Self { ui }
    }
}

impl Show for Json {
    fn update(&mut self, update: &Update) {
        match update {
            Update::Event(run, event) => {
                let stored =
                    stored::encode(event).ok().and_then(|line| serde_json::from_str::<Value>(&line).ok());
                if let Some(event) = stored {
                    self.ui.object(&json!({ "run": run.to_string(), "event": event }));
                }
            }
            Update::Progress(progress) => self.ui.object(&json!({ "progress": progress })),
        }
    }

    fn close(&mut self) {}
}
