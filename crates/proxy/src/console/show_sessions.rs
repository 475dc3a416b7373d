//! Owns `SHOW SESSIONS`. Changes nothing.
//!
//! `class` is `pinned` for what the last look at the session found, else `draining` inside a transaction, else `movable`;
//! `reason` says why, and `since_ms` for how long. Sessions are looked at by `LOOK` and `WARM`, and from a `WARM` on when they
//! said something that may have changed what they hold, at the latest in the hold. What no catalogue shows is not in
//! `reason`: custom settings whose name no text of the client and no function, policy or view of the database spells out, and
//! what a server process keeps to itself (`currval`, variables and connections of extensions and procedural languages).

use std::sync::atomic::Ordering::Relaxed;

use super::answer::Answer;
use crate::registry::{Class, Entry, WarmState};
use crate::route::Route;
use crate::shared::Shared;

pub(super) fn show_sessions(shared: &Shared) -> Answer {
    let mut table = Answer::table(&[
        "id",
        "user",
        "database",
        "application_name",
        "client_addr",
        "state",
        "route",
        "class",
        "reason",
        "transaction_ms",
        "since_ms",
        "warm",
        "reads",
    ]);
    let now = shared.registry.now();
    for entry in shared.registry.all() {
        table.row(row(&entry, now));
    }
    table
}

fn row(entry: &Entry, now: u64) -> Vec<String> {
    let inside = entry.inside_for(now);
    let state = match (entry.held.load(Relaxed), inside) {
        (_, Some(_)) => "busy",
        (true, None) => "held",
        (false, None) => "idle",
    };
    let details = entry.details();
    let class = entry.class(&details, now);
    let (since, reason) = match class {
        Class::Pinned => (now.saturating_sub(details.pinned_since.max(1)), details.pins.join("; ")),
        Class::Draining => (inside.unwrap_or(0), "an open transaction".into()),
        Class::Movable => (0, String::new()),
    };
    let warm = match &details.warm {
        WarmState::Failed(why) => format!("failed: {why}"),
        WarmState::Ready if !entry.stale.load(Relaxed) => "ready".into(),
        WarmState::Ready => "stale".into(),
        WarmState::None | WarmState::Opening => "none".into(),
    };
    vec![
        entry.id.to_string(),
        entry.user.clone(),
        entry.database.clone(),
        details.renamed.clone().unwrap_or_else(|| entry.application_name.clone()),
        entry.client_addr.clone(),
        state.into(),
        details.side.map(|side| side.to_string()).unwrap_or_default(),
        class.name().into(),
        reason,
        inside.map(|us| (us / 1000).to_string()).unwrap_or_else(|| "0".into()),
        (since / 1000).to_string(),
        warm,
        if entry.route == Route::Read { "yes" } else { "no" }.into(),
    ]
}
