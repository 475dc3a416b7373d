//! Owns `SHOW ROUTES`: the servers that sessions can be on. Changes nothing.
//!
//! `active` is the side that new transactions go to. `sessions` are on the server, `busy` of them inside a transaction;
//! `ahead` are connections opened there for sessions of the other side, `left` those that sessions have left and that
//! are soon closed, `free` those that the next client of their kind may have. Replicas have `health` and `lag_ms`, of
//! the last check.

use std::collections::HashMap;
use std::sync::Arc;

use super::answer::Answer;
use crate::config::ServerConfig;
use crate::reads::Replica;
use crate::registry::Entry;
use crate::roll::{Line, Use};
use crate::route::{Route, Side};
use crate::shared::Shared;

pub(super) fn show_routes(shared: &Shared) -> Answer {
    let mut table = Answer::table(&[
        "side", "active", "host", "port", "sslmode", "sessions", "busy", "ahead", "left", "free", "route",
        "health", "lag_ms",
    ]);
    let active = shared.gate.course().side;
    let seen = Seen::now(shared);
    let mut put = |side: Side, server: &ServerConfig, replica: Option<&Arc<Replica>>| {
        let on = seen.counted(|at| at.is(side, Some(replica)));
        let (health, lag) = replica.map_or_else(Default::default, |replica| {
            let (standing, lag) = replica.standing();
            (standing.shown(), lag.map(|lag| lag.as_millis().to_string()).unwrap_or_default())
        });
        let route = if replica.is_some() { Route::Read } else { Route::Write };
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
            route.name().into(),
            health,
            lag,
        ]);
    };
    for side in [Side::Blue, Side::Green] {
        let Some(server) = shared.config.server(side) else { continue };
        put(side, server, None);
        for replica in shared.reads.of(side).all() {
            put(side, &replica.config, Some(replica));
        }
    }
    table
}

pub(super) fn sslmode(server: &ServerConfig) -> String {
    server.sslmode.name().into()
}

/// What there is on one server or side.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct On {
    pub(crate) sessions: usize,
    pub(crate) busy: usize,
    /// Connections of sessions.
    pub(crate) upstreams: usize,
    pub(crate) ahead: usize,
    pub(crate) left: usize,
    pub(crate) free: usize,
}

/// Where a session or a connection is.
struct At<'a> {
    side: Option<Side>,
    replica: Option<&'a Arc<Replica>>,
}

impl At<'_> {
    /// Whether it is on a side, and there, when that is asked, on that replica or on the primary.
    fn is(&self, side: Side, server: Option<Option<&Arc<Replica>>>) -> bool {
        let is_there = server.is_none_or(|server| match (server, self.replica) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        });
        self.side == Some(side) && is_there
    }
}

/// All sessions and connections of one moment.
struct Seen {
    entries: Vec<(Arc<Entry>, Option<Side>, bool)>,
    lines: Vec<Arc<Line>>,
    /// The connections of sessions, by session.
    of_sessions: HashMap<u64, usize>,
}

impl Seen {
    fn now(shared: &Shared) -> Self {
        let now = shared.registry.now();
        let entry = |entry: Arc<Entry>| {
            let (side, busy) = (entry.details().side, entry.inside_for(now).is_some());
            (entry, side, busy)
        };
        let entries = shared.registry.all().into_iter().map(entry).collect();
        let lines = shared.roll.all();
        let of_session = |(at, line): (usize, &Arc<Line>)| {
            line.session().filter(|_| line.used_for() == Use::Session).map(|session| (session, at))
        };
        let of_sessions = lines.iter().enumerate().filter_map(of_session).collect();
        Self { entries, lines, of_sessions }
    }

    fn counted(&self, counts: impl Fn(At<'_>) -> bool) -> On {
        let mut on = On::default();
        let replica = |line: &'_ Arc<Line>| line.berth.as_ref().map(|berth| Arc::clone(berth.replica()));
        for (entry, side, busy) in &self.entries {
            let line = self.of_sessions.get(&entry.id).and_then(|at| self.lines.get(*at));
            if counts(At { side: *side, replica: line.and_then(replica).as_ref() }) {
                on.sessions += 1;
                on.busy += usize::from(*busy);
            }
        }
        for line in self.lines.iter() {
            if !counts(At { side: Some(line.side), replica: replica(line).as_ref() }) {
                continue;
            }
            match line.used_for() {
                Use::Session => on.upstreams += 1,
                Use::Ahead => on.ahead += 1,
                Use::Left => on.left += 1,
                Use::Free => on.free += 1,
            }
        }
        on
    }
}

/// What there is on all servers of a side.
pub(crate) fn counted(shared: &Shared, side: Side) -> On {
    Seen::now(shared).counted(|at| at.is(side, None))
}
