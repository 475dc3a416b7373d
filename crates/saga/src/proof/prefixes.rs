//! That every beginning of a legal journal is a place from which to go on.
//! Refuses to drive anything.

use crate::decide::{Now, decide};
use crate::event::Event;
use crate::state::{State, fold};

/// Folds and decides after each event, as a driver would that finds the journal so.
pub(super) fn every_prefix_decides(events: &[Event]) -> Result<(), String> {
    let first = events.first().ok_or("the journal is empty")?;
    let mut state = State::begin(first).map_err(|error| error.to_string())?;
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            state.apply(event).map_err(|error| error.to_string())?;
        }
        for stop in [false, true] {
            let _total = decide(state.plan(), &state, Now { at: event.at, stop });
        }
        let again = fold(&events[..=index]).map_err(|error| error.to_string())?;
        if again != state {
            return Err(format!("the first {} events fold to another state than live", index + 1));
        }
    }
    Ok(())
}
