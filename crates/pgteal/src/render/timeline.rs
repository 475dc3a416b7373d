//! The timeline of a run in milliseconds, from the journal.

use pgteal_saga::Event;
use pgteal_saga::event::Doing;
use pgteal_saga::timeline::{Lap, timeline};
use serde_json::{Value, json};

use super::Titles;
use super::table::table;

/// Columns of the drawing.
const WIDTH: i64 = 32;

/// The laps of the steps from `first` to `last`, or of all steps.
#[must_use]
pub fn laps(events: &[Event], section: Option<(&str, &str)>) -> Vec<Lap> {
    let laps = timeline(events);
    let Some((first, last)) = section else { return laps };
    let from = laps.iter().position(|lap| lap.step == first);
    let to = laps.iter().rposition(|lap| lap.step == last);
    match (from, to) {
        (Some(from), Some(to)) if from <= to => laps[from..=to].to_vec(),
        (Some(from), _) => laps[from..].to_vec(),
        _ => Vec::new(),
    }
}

/// Milliseconds with one decimal more than a person needs.
#[must_use]
pub fn millis(micros: i64) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let millis = micros as f64 / 1e3;
    millis
}

/// The laps as a table with a drawing.
#[must_use]
pub fn draw(laps: &[Lap], titles: &Titles) -> String {
    let Some(zero) = laps.first().map(|lap| lap.began.as_microsecond()) else { return String::new() };
    let end = laps.iter().filter_map(|lap| lap.ended).map(|at| at.as_microsecond()).max().unwrap_or(zero);
    let whole = (end - zero).max(1);
    let rows = laps.iter().map(|lap| {
        let from = lap.began.as_microsecond() - zero;
        let took = lap.micros();
        let column = |at: i64| usize::try_from(at * WIDTH / whole).unwrap_or(0);
        let (start, length) = (column(from), column(took.unwrap_or(0)).max(1));
        let mark = if lap.doing == Doing::Undo { "<" } else { "=" };
        let title = titles.get(&lap.step).map_or(lap.step.as_str(), String::as_str);
        let word = match (lap.ok, lap.doing) {
            (true, Doing::Undo) => "undone",
            (true, Doing::Apply) => "",
            (false, _) => "failed",
        };
        vec![
            title.to_owned(),
            format!("{:.1}", millis(from)),
            took.map_or_else(|| "-".into(), |took| format!("{:.1}", millis(took))),
            format!("{}{}", " ".repeat(start), mark.repeat(length)),
            word.to_owned(),
        ]
    });
    table(&["step", "at ms", "took ms", "", ""], &[1, 2], rows)
}

/// The laps as JSON: `[{step, doing, at_ms, took_ms, ok}]`.
#[must_use]
pub fn value(laps: &[Lap]) -> Value {
    let zero = laps.first().map_or(0, |lap| lap.began.as_microsecond());
    laps.iter()
        .map(|lap| {
            json!({
                "step": lap.step,
                "doing": lap.doing,
                "at_ms": millis(lap.began.as_microsecond() - zero),
                "took_ms": lap.micros().map(millis),
                "ok": lap.ok,
            })
        })
        .collect()
}
