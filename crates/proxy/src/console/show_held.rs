//! Owns `SHOW HELD`: who waits before the gate. Changes nothing.
//!
//! `kind` is `statement` for a session whose next transaction waits, and `login` for a connection that is not logged in yet.
//! `bytes` are those that the client has sent and that wait here; what it sends beyond them waits with the client.

use std::sync::atomic::Ordering::Relaxed;

use super::answer::Answer;
use crate::shared::Shared;

pub(super) fn show_held(shared: &Shared) -> Answer {
    let mut table = Answer::table(&[
        "id",
        "kind",
        "user",
        "database",
        "application_name",
        "client_addr",
        "wait_ms",
        "bytes",
    ]);
    let now = shared.registry.now();
    for entry in shared.registry.all().iter().filter(|entry| entry.held.load(Relaxed)) {
        table.row(vec![
            entry.id.to_string(),
            "statement".into(),
            entry.user.clone(),
            entry.database.clone(),
            entry.shown_name(),
            entry.client_addr.clone(),
            (now.saturating_sub(entry.held_since.load(Relaxed)) / 1000).to_string(),
            entry.held_bytes.load(Relaxed).to_string(),
        ]);
    }
    for (id, guest) in shared.lobby.held() {
        let waits = guest.since.elapsed().as_millis();
        table.row(vec![
            id.to_string(),
            "login".into(),
            guest.named.user,
            guest.named.database,
            guest.named.application_name,
            guest.client_addr,
            waits.to_string(),
            "0".into(),
        ]);
    }
    table
}
