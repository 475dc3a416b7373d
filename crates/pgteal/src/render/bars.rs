//! A run on a terminal: finished steps above, bars below for what is going on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pgteal_saga::event::EventBody;
use pgteal_saga::{Progress, Update};

use super::lines::{Teller, counted};
use super::rate::Rate;
use super::{Show, Titles};
use crate::ui::Ui;

/// Bars shown at the same time; more items than that share the step's own line.
const MOST_BARS: usize = 8;

/// Bars.
pub(super) struct Bars {
    teller: Teller,
    all: MultiProgress,
    step: Option<ProgressBar>,
    items: BTreeMap<String, (ProgressBar, Rate)>,
}

impl Bars {
    pub(super) fn new(ui: Ui, titles: Titles) -> Self {
        Self {
            teller: Teller::new(ui, titles),
            all: MultiProgress::new(),
            step: None,
            items: BTreeMap::new(),
        }
    }

    fn begin(&mut self, step: &str) {
        self.clear();
        let bar = self.all.add(ProgressBar::new_spinner());
        bar.set_style(style("  {spinner} {prefix:<10} {wide_msg}"));
        bar.set_prefix(self.teller.title(step).to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        self.step = Some(bar);
    }

    fn clear(&mut self) {
        for (bar, _) in std::mem::take(&mut self.items).into_values() {
            bar.finish_and_clear();
        }
        if let Some(bar) = self.step.take() {
            bar.finish_and_clear();
        }
    }

    fn progress(&mut self, progress: &Progress) {
        let now = Instant::now();
        let done = progress.done.unwrap_or(0);
        let finished = progress.total.is_some_and(|total| total > 0 && done >= total);
        let Some(item) = &progress.item else {
            if let Some(bar) = &self.step {
                bar.set_message(format!("{} {}", counted(progress, &Rate::new(now, done)), progress.message));
            }
            return;
        };
        if finished {
            if let Some((bar, _)) = self.items.remove(item) {
                bar.finish_and_clear();
            }
            return;
        }
        if !self.items.contains_key(item) {
            if self.items.len() >= MOST_BARS {
                return;
            }
            let bar = self.all.add(ProgressBar::new(progress.total.unwrap_or(0)));
            let template = match progress.total {
                Some(_) => "    {prefix:<32!} {bar:24.cyan} {msg}",
                None => "    {prefix:<32!} {msg}",
            };
            bar.set_style(style(template));
            bar.set_prefix(item.clone());
            self.items.insert(item.clone(), (bar, Rate::new(now, done)));
        }
        if let Some((bar, rate)) = self.items.get_mut(item) {
            rate.sample(now, done);
            bar.set_position(done);
            bar.set_message(format!("{} {}", counted(progress, rate), progress.message).trim().to_owned());
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

impl Show for Bars {
    fn update(&mut self, update: &Update) {
        match update {
            Update::Progress(progress) => self.progress(progress),
            Update::Event(_, event) => {
                if let Some(line) = self.teller.tell(event) {
                    // A terminal that went away is no failure of the run.
                    let _ = self.all.println(line);
                }
                match &event.body {
                    EventBody::Started { step } | EventBody::UndoStarted { step } => self.begin(step),
                    EventBody::Succeeded { .. } | EventBody::Undone { .. } => self.clear(),
                    _ => {}
                }
            }
        }
    }

    fn close(&mut self) {
        self.clear();
    }
}
