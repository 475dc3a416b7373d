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

/// An item that was not heard of for so long is over: not every step tells of an item's end.
const FORGOTTEN: Duration = Duration::from_secs(3);

/// Bars.
pub(super) struct Bars {
    teller: Teller,
    all: MultiProgress,
    step: Option<(ProgressBar, Option<Rate>)>,
    items: BTreeMap<String, Item>,
}

/// One item's bar.
struct Item {
    bar: ProgressBar,
    rate: Rate,
    heard: Instant,
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
        self.step = Some((bar, None));
    }

    fn clear(&mut self) {
        for item in std::mem::take(&mut self.items).into_values() {
            item.bar.finish_and_clear();
        }
        if let Some((bar, _)) = self.step.take() {
            bar.finish_and_clear();
        }
    }

    fn progress(&mut self, progress: &Progress) {
        let now = Instant::now();
        let done = progress.done.unwrap_or(0);
        let finished = progress.total.is_some_and(|total| total > 0 && done >= total);
        self.items.retain(|_, item| {
            let heard = now.saturating_duration_since(item.heard) < FORGOTTEN;
            if !heard {
                item.bar.finish_and_clear();
            }
            heard
        });
        let Some(name) = &progress.item else {
            if let Some((bar, rate)) = &mut self.step {
                let rate = rate.get_or_insert_with(|| Rate::new(now, done));
                rate.sample(now, done);
                bar.set_message(format!("{} {}", counted(progress, rate), progress.message));
            }
            return;
        };
        if finished {
            if let Some(item) = self.items.remove(name) {
                item.bar.finish_and_clear();
            }
            return;
        }
        if !self.items.contains_key(name) {
            if self.items.len() >= MOST_BARS {
                return;
            }
            let bar = self.all.add(ProgressBar::new(progress.total.unwrap_or(0)));
            let template = match progress.total {
                Some(_) => "    {prefix:<32!} {bar:24.cyan} {msg}",
                None => "    {prefix:<32!} {msg}",
            };
            bar.set_style(style(template));
            bar.set_prefix(name.clone());
            self.items.insert(name.clone(), Item { bar, rate: Rate::new(now, done), heard: now });
        }
        if let Some(item) = self.items.get_mut(name) {
            item.heard = now;
            item.rate.sample(now, done);
            item.bar.set_position(done);
            let text = format!("{} {}", counted(progress, &item.rate), progress.message);
            item.bar.set_message(text.trim().to_owned());
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
