//! `pgteal switch --preview`: what a switchover would mean to each client session now. Owns the words; the looking is the
//! router's. Changes nothing and opens nothing.

use std::time::Duration;

use pgteal_core::router::{Census, Pinned};

use super::Context;
use crate::config::{Loaded, OnPinned};
use crate::errors::Failure;
use crate::exit::Exit;
use crate::run::place;
use crate::units;

/// How long all sessions together may be looked at.
const BOUND: Duration = Duration::from_secs(30);
/// Pinned sessions that are told one by one.
const SHOWN: usize = 10;

pub(super) async fn preview(context: &Context, loaded: &Loaded) -> Result<Exit, Failure> {
    let census = look(context, loaded).await?;
    context.ui.line(sentence(&census));
    context.ui.object(&serde_json::json!({ "preview": census }));
    Ok(Exit::Done)
}

/// Looks at every session, in turns.
pub(super) async fn look(context: &Context, loaded: &Loaded) -> Result<Census, Failure> {
    Ok(place::router(loaded, &context.env, "look")?.census(BOUND).await?)
}

/// Says before a switchover begins who would not go along, and what becomes of them.
pub(super) async fn warn(context: &Context, loaded: &Loaded) {
    let fate = match loaded.config.switch.on_pinned {
        OnPinned::End => "ended with SQLSTATE 57P01 at the repoint",
        OnPinned::Wait => "waited for, with nobody held",
        OnPinned::Abort => "kept, and the switchover does not begin",
    };
    match look(context, loaded).await {
        Ok(census) if census.pinned.is_empty() => {}
        Ok(census) => {
            context.ui.note(format!("{}. Pinned sessions are {fate} (--on-pinned)", sentence(&census)))
        }
        Err(error) => context.ui.note(format!("sessions could not be looked at ahead: {error}")),
    }
}

/// "4,112 movable, 3 draining (longest 800.0 ms), 1 pinned: a temporary table (t), app billing".
pub(super) fn sentence(census: &Census) -> String {
    let mut out = format!("{} movable", units::count(census.movable));
    out.push_str(&format!(", {} draining", units::count(census.draining)));
    if census.draining > 0 {
        out.push_str(&format!(" (longest {})", units::duration(census.longest)));
    }
    let pinned = census.pinned.len();
    out.push_str(&format!(", {} pinned", units::count(pinned as u64)));
    if pinned > 0 {
        let told: Vec<_> = census.pinned.iter().take(SHOWN).map(one).collect();
        out.push_str(&format!(": {}", told.join("; ")));
    }
    if pinned > SHOWN {
        out.push_str(&format!("; and {} more", units::count((pinned - SHOWN) as u64)));
    }
    out
}

fn one(pinned: &Pinned) -> String {
    match pinned.application_name.as_str() {
        "" => format!("{}, user {}", pinned.reason, pinned.user),
        name => format!("{}, app {name}", pinned.reason),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_sentence_tells_how_many_may_move_and_who_may_not() {
        let pinned = |reason: &str, application_name: &str| Pinned {
            reason: reason.into(),
            application_name: application_name.into(),
            user: "joe".into(),
            ..Pinned::default()
        };
        let census = |movable, draining, pinned: &[Pinned]| Census {
            movable,
            draining,
            longest: Duration::from_millis(800),
            pinned: pinned.to_vec(),
        };
        let billing = pinned("a temporary table (t)", "billing");
        let many = vec![billing.clone(); 12];
        for (census, expected) in [
            (census(0, 0, &[]), "0 movable, 0 draining, 0 pinned"),
            (
                census(4112, 3, &[billing]),
                "4,112 movable, 3 draining (longest 800.0 ms), 1 pinned: a temporary table (t), app billing",
            ),
            (
                census(1, 0, &[pinned("a cursor WITH HOLD (c)", "")]),
                "1 movable, 0 draining, 1 pinned: a cursor WITH HOLD (c), user joe",
            ),
        ] {
            assert_eq!(sentence(&census), expected);
        }
        assert!(sentence(&census(0, 0, &many)).ends_with("app billing; and 2 more"));
    }
}
