//! The stored form of events: one line of JSON each, with its version in front, chained by digests.
//! Refuses to know where lines are kept; every past version stays readable here.

mod chain;
mod v1;

use serde_json::Value;

use crate::event::Event;
use crate::plan::Draft;

pub use chain::{Link, link};

/// The version that is written.
pub const VERSION: u32 = 1;

/// A line that is not a stored event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// Not JSON, or not of the shape its version has.
    #[error("not a stored event: {0}")]
    Shape(String),
    /// Written by a newer program.
    #[error("stored as version {0}, this program reads versions up to {VERSION}")]
    Version(u64),
}

/// The line for `event`.
///
/// # Errors
/// [`StoredError::Shape`] if a time lies outside what can be written.
pub fn encode(event: &Event) -> Result<String, StoredError> {
    serde_json::to_string(&v1::StoredEvent::from(event)).map_err(|e| StoredError::Shape(e.to_string()))
}

/// The event of `line`.
///
/// # Errors
/// [`StoredError`] if it was not written by [`encode`].
pub fn decode(line: &str) -> Result<Event, StoredError> {
    let shape = |error: serde_json::Error| StoredError::Shape(error.to_string());
    let value: Value = serde_json::from_str(line).map_err(shape)?;
    match value.get("v").and_then(Value::as_u64) {
        Some(1) => {
            let stored: v1::StoredEvent = serde_json::from_value(value).map_err(shape)?;
            Event::try_from(stored)
        }
        Some(other) => Err(StoredError::Version(other)),
        None => Err(StoredError::Shape("it has no version".into())),
    }
}

/// What a plan's hash is taken over.
pub(crate) fn plan_contents(draft: &Draft, engine: u32) -> Value {
    v1::plan_contents(draft, engine)
}

/// Reads a run back from its lines and their links; `last` is the number the journal has of its last event.
///
/// # Errors
/// What does not fit, as text: a line that is missing, altered or out of place.
pub fn read_run<'a>(
    lines: impl IntoIterator<Item = (&'a str, &'a str)>,
    last: u64,
) -> Result<Vec<Event>, String> {
    let mut events = Vec::new();
    let mut previous = String::new();
    for (seq, (line, recorded)) in (1..).zip(lines) {
        let computed = link(&previous, line);
        if computed != recorded {
            return Err(format!("event {seq}: its contents do not give its digest"));
        }
        let event = decode(line).map_err(|error| format!("event {seq}: {error}"))?;
        if event.seq != seq {
            return Err(format!("event {seq}: event {} stands in its place", event.seq));
        }
        events.push(event);
        previous = computed;
    }
    if events.len() as u64 != last {
        return Err(format!("it has {} events, but {last} were recorded", events.len()));
    }
    Ok(events)
}
