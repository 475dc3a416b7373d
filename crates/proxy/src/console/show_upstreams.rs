//! Owns `SHOW UPSTREAMS`: the connections to servers that sessions have or had. Changes nothing.
//!
//! `state` is `active` inside a transaction, `idle` between two, `ahead` for a connection that was opened for a session of the
//! other side, `left` for one that its session has left and that is soon closed, `free` for one that the next client of its kind may have. `remote_pid` is the server's process, as
//! `pg_stat_activity` knows it. The few connections by which verifiers are looked up (`application_name` `pgteal/auth`) are
//! nobody's, and not listed.

use std::collections::HashSet;

use super::answer::Answer;
use super::show_routes::sslmode;
use crate::roll::Use;
use crate::shared::Shared;

pub(super) fn show_upstreams(shared: &Shared) -> Answer {
    let mut table = Answer::table(&[
        "session",
        "user",
        "database",
        "side",
        "host",
        "port",
        "state",
        "remote_pid",
        "sslmode",
        "tls",
        "age_ms",
    ]);
    let now = shared.registry.now();
    let inside = shared.registry.all().into_iter().filter(|entry| entry.inside_for(now).is_some());
    let inside: HashSet<u64> = inside.map(|entry| entry.id).collect();
    for line in shared.roll.all() {
        let state = match line.used_for() {
            Use::Session if line.session().is_some_and(|id| inside.contains(&id)) => "active",
            Use::Session => "idle",
            Use::Ahead => "ahead",
            Use::Left => "left",
            Use::Free => "free",
        };
        let replica = line.berth.as_ref().map(|berth| &berth.replica().config);
        let Some(server) = replica.or_else(|| shared.config.server(line.side)) else { continue };
        table.row(vec![
            line.session().map(|id| id.to_string()).unwrap_or_default(),
            line.user.to_string(),
            line.database.to_string(),
            line.side.to_string(),
            server.host.clone(),
            server.port.to_string(),
            state.into(),
            line.remote_pid.map(|pid| pid.to_string()).unwrap_or_default(),
            sslmode(server),
            if line.tls { "yes" } else { "no" }.into(),
            line.since.elapsed().as_millis().to_string(),
        ]);
    }
    table
}
