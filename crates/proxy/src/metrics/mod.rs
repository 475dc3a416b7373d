//! Owns what Prometheus is told: the names, the units, and where each number comes from. Refuses to count by itself: it reads what
//! the console reads.

mod listen;
mod text;

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use crate::console::counted;
use crate::gate::Phase;
use crate::reads::{Replica, Standing};
use crate::registry::Class;
use crate::route::Side;
use crate::shared::Shared;

pub(crate) use listen::listen;
use text::Page;

/// The whole page.
fn page(shared: &Shared) -> String {
    let mut page = Page::default();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.gauges("build_info", "The program; always 1.", &[(&version, 1)]);
    gate(&mut page, shared);
    sessions(&mut page, shared);
    sides(&mut page, shared);
    replicas(&mut page, shared);
    counters(&mut page, shared);
    page.text()
}

fn gate(page: &mut Page, shared: &Shared) {
    let view = shared.gate.view();
    let active = |side| u64::from(view.course.side == side);
    let (blue, green) = (active(Side::Blue), active(Side::Green));
    let sides: [(&[_], _); 2] = [(&[("side", "blue")], blue), (&[("side", "green")], green)];
    page.gauges("side_active", "1 for the side that new transactions go to.", &sides);
    page.gauge("epoch", "The highest epoch that a driver has shown.", view.epoch);
    let (held, remaining) = match &view.phase {
        Phase::Flowing => (0, 0),
        Phase::Held(hold) => (1, hold.deadline.saturating_duration_since(Instant::now()).as_micros()),
    };
    page.gauge("holding", "1 while clients are held.", held);
    let remaining = u64::try_from(remaining).unwrap_or(u64::MAX);
    page.seconds("hold_remaining_seconds", "Until the hold ends by itself.", remaining);
    let before = shared.gate.of_predecessor().unwrap_or(0) as u64;
    page.gauge(
        "predecessor_connections",
        "Connections that the process before this one still serves.",
        before,
    );
    page.gauge("clients_busy", "Sessions inside a transaction.", u64::from(view.busy));
    let held: [(&[_], _); 2] =
        [(&[("kind", "statement")], view.waiting), (&[("kind", "login")], shared.lobby.count_held() as u64)];
    page.gauges("clients_held", "Who waits before the gate.", &held);
    page.histogram("hold_seconds", "How long holds lasted.", shared.gate.holds());
    page.histogram("stall_seconds", "How long statements waited before the gate.", &shared.stats.stalls);
}

fn sessions(page: &mut Page, shared: &Shared) {
    let now = shared.registry.now();
    let (mut counts, mut longest) = ([0; 3], 0);
    let all = shared.registry.all();
    for entry in &all {
        let class = entry.class(&entry.details(), now);
        if let Some(count) = counts.get_mut(class as usize) {
            *count += 1;
        }
        longest = longest.max(entry.inside_for(now).unwrap_or(0));
    }
    page.gauge("clients", "Client sessions.", all.len() as u64);
    let max = shared.config.limits.max_clients;
    page.gauge("clients_max", "Client sessions that there may be.", max as u64);
    page.gauge("connections_pending", "Connections that are no sessions yet.", shared.lobby.len() as u64);
    let [movable, draining, pinned] = counts;
    let classes: [(&[_], _); 3] = [
        (&[("class", Class::Movable.name())], movable),
        (&[("class", Class::Draining.name())], draining),
        (&[("class", Class::Pinned.name())], pinned),
    ];
    page.gauges(
        "sessions",
        "Client sessions by what a switchover would find, as in SHOW SESSIONS.",
        &classes,
    );
    page.seconds("longest_transaction_seconds", "The longest of the open transactions.", longest);
}

fn sides(page: &mut Page, shared: &Shared) {
    let mut samples = Vec::new();
    for side in [Side::Blue, Side::Green].into_iter().filter(|side| shared.config.server(*side).is_some()) {
        let on = counted(shared, side);
        for (state, count) in
            [("session", on.upstreams), ("ahead", on.ahead), ("left", on.left), ("free", on.free)]
        {
            samples.push(([("side", side.name()), ("state", state)], count as u64));
        }
    }
    let samples: Vec<(&[_], _)> = samples.iter().map(|(labels, count)| (&labels[..], *count)).collect();
    page.gauges("upstreams", "Connections to servers, as in SHOW ROUTES.", &samples);
}

fn replicas(page: &mut Page, shared: &Shared) {
    let mut all = Vec::new();
    for side in [Side::Blue, Side::Green] {
        let of_side = shared.reads.of(side).all().iter();
        all.extend(of_side.map(|replica| (side, replica.shown(), replica)));
    }
    if all.is_empty() {
        return;
    }
    let labels: Vec<_> =
        all.iter().map(|(side, server, _)| [("side", side.name()), ("server", server.as_str())]).collect();
    let gauges = |of: &dyn Fn(&Replica) -> Option<u64>| -> Vec<(&[(&str, &str)], u64)> {
        let numbers = all.iter().map(|(.., replica)| of(replica));
        labels.iter().zip(numbers).filter_map(|(labels, number)| Some((&labels[..], number?))).collect()
    };
    let fit = |replica: &Replica| Some(u64::from(replica.standing().0 == Standing::Fit));
    page.gauges("replica_fit", "1 for a replica that takes readers.", &gauges(&fit));
    let connections = |replica: &Replica| Some(replica.connections() as u64);
    page.gauges("replica_connections", "Connections of clients to a replica.", &gauges(&connections));
    let lag = |replica: &Replica| {
        replica.standing().1.map(|lag| u64::try_from(lag.as_micros()).unwrap_or(u64::MAX))
    };
    let help = "How far a replica is behind its primary, where that is known.";
    page.all_seconds("replica_lag_seconds", help, &gauges(&lag));
}

fn counters(page: &mut Page, shared: &Shared) {
    let stats = &shared.stats;
    let hits: Vec<_> = stats.hits().map(|(limit, count)| ([("limit", limit.name())], count)).collect();
    let hits: Vec<(&[_], _)> = hits.iter().map(|(labels, count)| (&labels[..], *count)).collect();
    page.counters("limit_hits_total", "How often somebody met a bound.", &hits);
    let totals = shared.registry.totals();
    page.counter("queries_total", "Units that servers have answered.", totals.queries);
    page.counter("received_bytes_total", "Bytes from clients to servers.", totals.received);
    page.counter("sent_bytes_total", "Bytes from servers to clients.", totals.sent);
    for (name, help, counter) in [
        ("connections_accepted_total", "Connections accepted.", &stats.accepted),
        ("login_failures_total", "Clients that were not let in for who they are.", &stats.login_failures),
        ("cancel_requests_total", "Cancel requests of clients.", &stats.cancels),
        ("read_fallbacks_total", "Readers sent to a primary for want of a replica.", &stats.read_fallbacks),
        ("sessions_closed_total", "Sessions that the proxy ended.", &stats.closed_by_proxy),
        ("sessions_terminated_total", "Of these, ended with SQLSTATE 57P01.", &stats.ended_57p01),
        ("upstreams_lost_total", "Connections to servers lost under a session.", &stats.upstream_lost),
    ] {
        page.counter(name, help, counter.load(Relaxed));
    }
}
