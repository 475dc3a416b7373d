//! A run as plain lines: one per finished step, and a line about long work every few seconds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pgteal_saga::event::{Doing, End, Event, EventBody};
use pgteal_saga::{Progress, Update};

use super::rate::Rate;
use super::{Show, Titles};
use crate::ui::{Style, Ui};
use crate::units;

/// Between two lines about the same step.
const EVERY: Duration = Duration::from_secs(5);

/// Turns events into lines; also used by the bars, which print the same lines above themselves.
#[derive(Debug)]
pub(super) struct Teller {
    ui: Ui,
    titles: Titles,
    started: BTreeMap<String, u64>,
    /// Whether the journal names a failure already, so that it is not told twice.
    last_failure: Option<String>,
}

impl Teller {
    pub(super) const fn new(ui: Ui, titles: Titles) -> Self {
        Self { ui, titles, started: BTreeMap::new(), last_failure: None }
    }

    pub(super) fn title<'t>(&'t self, step: &'t str) -> &'t str {
        self.titles.get(step).map_or(step, String::as_str)
    }

    fn took(&mut self, event: &Event, step: &str) -> String {
        let begun = self.started.remove(step).filter(|begun| *begun <= event.mono_ns);
        begun.map(|begun| units::duration(Duration::from_nanos(event.mono_ns - begun))).unwrap_or_default()
    }

    fn line(&self, style: Style, word: &str, text: &str, right: &str) -> String {
        let word = self.ui.paint(style, &format!("{word:<8}"));
        format!("  {word} {text:<44} {right}").trim_end().to_owned()
    }

    /// The line for an event, if it deserves one.
    pub(super) fn tell(&mut self, event: &Event) -> Option<String> {
        use EventBody as E;
        let line = match &event.body {
            E::RunCreated { plan } => {
                format!("{}: {} steps, deployment {}", plan.kind(), plan.steps().len(), plan.deployment())
            }
            E::Resumed { .. } => return None,
            E::Started { step } | E::UndoStarted { step } => {
                self.started.insert(step.clone(), event.mono_ns);
                return None;
            }
            E::Succeeded { step, .. } => {
                let took = self.took(event, step);
                self.line(Style::Good, "done", self.title(step), &took)
            }
            E::Undone { step } => {
                let took = self.took(event, step);
                self.line(Style::Warn, "undone", self.title(step), &took)
            }
            E::Failed { step, failure, attempt, .. } | E::UndoFailed { step, failure, attempt, .. } => {
                let text = failure.to_string();
                if self.last_failure.as_ref() == Some(&text) {
                    return None;
                }
                let line =
                    self.line(Style::Bad, "failed", self.title(step), &format!("try {attempt}: {text}"));
                self.last_failure = Some(text);
                line
            }
            E::Lost { step, failure } => {
                self.line(Style::Bad, "lost", self.title(step), &failure.to_string())
            }
            E::GateWaiting { step, what } => self.line(Style::Warn, "waiting", self.title(step), what),
            E::GateOpened { step, by } => {
                self.line(Style::Good, "opened", self.title(step), &format!("by {by}"))
            }
            E::Deadline { step, elapsed_ms } => {
                self.line(Style::Bad, "deadline", self.title(step), &format!("after {elapsed_ms} ms"))
            }
            E::UndoRequested { by } => self.line(Style::Warn, "undo", &format!("asked for by {by}"), ""),
            E::Stuck { step, doing, .. } => {
                let doing = if *doing == Doing::Undo { "while undoing" } else { "" };
                self.line(Style::Bad, "stuck", self.title(step), doing)
            }
            E::Stopped => self.line(Style::Warn, "stopped", "at a safe point", ""),
            E::Finished { end: End::Unwound } => {
                self.line(Style::Warn, "unwound", "everything was put back", "")
            }
            E::Finished { end: End::Done } | E::Confirmed => return None,
        };
        Some(line)
    }
}

/// Plain lines.
pub(super) struct Lines {
    ui: Ui,
    teller: Teller,
    said: Option<Instant>,
    items: BTreeMap<(String, Option<String>), Rate>,
}

impl Lines {
    pub(super) fn new(ui: Ui, titles: Titles) -> Self {
        let teller = Teller::new(ui.clone(), titles);
        Self { ui, teller, said: None, items: BTreeMap::new() }
    }

    fn progress(&mut self, progress: &Progress, now: Instant) -> Option<String> {
        let key = (progress.step.clone(), progress.item.clone());
        let done = progress.done.unwrap_or(0);
        let rate = self.items.entry(key).or_insert_with(|| Rate::new(now, done));
        rate.sample(now, done);
        let counted = counted(progress, rate);
        let due = *self.said.get_or_insert(now) + EVERY;
        if now < due {
            return None;
        }
        self.said = Some(now);
        let what = match &progress.item {
            Some(item) => format!("{}: {item}", self.teller.title(&progress.step)),
            None => self.teller.title(&progress.step).to_owned(),
        };
        Some(self.teller.line(Style::Dim, "...", &what, format!("{counted} {}", progress.message).trim()))
    }
}

/// `45 % of 1.2 GiB, 30.1 MiB/s, ETA 40 s`.
pub(super) fn counted(progress: &Progress, rate: &Rate) -> String {
    let Some(done) = progress.done else { return String::new() };
    let show = |number: u64| {
        if progress.unit == "bytes" {
            units::bytes(number)
        } else {
            format!("{} {}", units::count(number), progress.unit)
        }
    };
    let mut parts = Vec::new();
    match progress.total.filter(|total| *total > 0) {
        Some(total) => parts.push(format!("{} % of {}", done.saturating_mul(100) / total, show(total))),
        None => parts.push(show(done)),
    }
    if let Some(rate) = rate.per_second().filter(|rate| *rate >= 1.0) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        parts.push(format!("{}/s", show(rate as u64)));
    }
    if let Some(eta) = progress.total.and_then(|total| rate.eta(total)).filter(|eta| !eta.is_zero()) {
        parts.push(format!("ETA {}", units::duration(Duration::from_secs(eta.as_secs().max(1)))));
    }
    parts.join(", ")
}

impl Show for Lines {
    fn update(&mut self, update: &Update) {
        let line = match update {
            Update::Event(_, event) => {
                self.said = None;
                self.teller.tell(event)
            }
            Update::Progress(progress) => self.progress(progress, Instant::now()),
        };
        if let Some(line) = line {
            self.ui.line(line);
        }
    }

    fn close(&mut self) {}
}
