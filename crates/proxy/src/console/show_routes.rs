//! Owns `SHOW ROUTES`: the sides that sessions can be on. Changes nothing.
//!
//! `active` is the side that new transactions go to. `sessions` are on it, `busy` of them inside a transaction; `ahead` are
//! connections opened there for sessions of the other side, `left` those that sessions have left and that are soon closed, `free` those that the
//! next client of their kind may have.

use super::answer::Answer;
use crate::config::ServerConfig;
use crate::roll::Use;
use crate::route::Side;
use crate::shared::Shared;

pub(super) fn show_routes(shared: &Shared) -> Answer {
    let mut table = Answer::table(&[
        "side", "active", "host", "port", "sslmode", "sessions", "busy", "ahead", "left", "free",
    ]);
    let active = shared.gate.course().side;
    for side in [Side::Blue, Side::Green] {
        let Some(server) = shared.config.server(side) else { continue };
        let on = counted(shared, side);
        table.row(vec![
            side.to_string(),
            if side == active { "yes" } else { "no" }.into(),
            server.host.clone(),
            server.port.to_string(),
            sslmode(server),
            on.sessions.to_string(),
            on.busy.to_string(),
            on.ahead.to_string(),
            on.left.to_string(),
            on.free.to_string(),
        ]);
    }
    table
}

pub(super) fn sslmode(server: &ServerConfig) -> String {
    server.sslmode.name().into()
}

/// What there is on one side.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct OnSide {
    pub(crate) sessions: usize,
    pub(crate) busy: usize,
    /// Connections of sessions.
    pub(crate) upstreams: usize,
    pub(crate) ahead: usize,
    pub(crate) left: usize,
    pub(crate) free: usize,
}

pub(crate) fn counted(shared: &Shared, side: Side) -> OnSide {
    let mut on = OnSide::default();
    let now = shared.registry.now();
    for entry in shared.registry.all() {
        if entry.details().side == Some(side) {
            on.sessions += 1;
            on.busy += usize::from(entry.inside_for(now).is_some());
        }
    }
    for line in shared.roll.all().iter().filter(|line| line.side == side) {
        match line.used_for() {
            Use::Session => on.upstreams += 1,
            Use::Ahead => on.ahead += 1,
            Use::Left => on.left += 1,
            Use::Free => on.free += 1,
        }
    }
    on
}
