//! `replication-capacity`: free slots, senders and workers on both sides, counted for every database (H02).

use crate::checks::{Check, Context, EVERY_VERSION, Evidence, Fact, Finding, Look, Place, Severity, Spot};
use crate::deployment::Side;

const ID: &str = "replication-capacity";

/// What is configured, and how much of it is taken by others. Our own slots are counted as free: they are what the room
/// is for.
const SQL: &str = r"select name, setting::int as setting, case name
    when 'max_replication_slots' then (select count(*) from pg_replication_slots where slot_name !~ '^pgteal_')
    when 'max_wal_senders' then (select count(*) from pg_stat_activity
      where backend_type = 'walsender' and application_name !~ '^pgteal')
    when 'max_logical_replication_workers' then (select count(*) from pg_stat_activity
      where backend_type like 'logical replication%worker')
    else 0 end as taken
  from pg_settings where name in ('max_replication_slots','max_wal_senders','max_logical_replication_workers',
    'max_worker_processes','max_active_replication_origins') order by 1";

pub(super) fn check() -> Check {
    Check {
        id: ID,
        title: "free slots, senders and workers",
        versions: EVERY_VERSION,
        looks: &[Look { at: Place::Blue, sql: SQL }, Look { at: Place::Green, sql: SQL }],
        judge,
    }
}

/// The least that works at all, and what lets every database copy with all its workers.
fn needed(setting: &str, side: Side, cx: &Context) -> Option<(i64, i64)> {
    let databases = i64::try_from(cx.databases.len().max(1)).unwrap_or(i64::MAX);
    let copying = databases.saturating_mul(1 + i64::from(cx.copy_workers));
    Some(match (setting, side) {
        // Each subscription holds one; each table being copied takes one more for a while.
        ("max_replication_slots" | "max_wal_senders", Side::Blue) => (databases + 1, copying),
        // One per reverse stream; up to 17 the same setting also bounds replication origins.
        ("max_replication_slots" | "max_active_replication_origins", Side::Green) => (databases + 1, copying),
        ("max_wal_senders", Side::Green) => (databases, databases),
        ("max_logical_replication_workers", Side::Green) => (databases + 1, copying),
        ("max_logical_replication_workers", Side::Blue) => (databases, databases),
        // The launcher of logical replication takes one too.
        ("max_worker_processes", Side::Green) => (databases + 2, copying + 1),
        ("max_worker_processes", Side::Blue) => (databases + 1, databases + 1),
        _ => return None,
    })
}

fn judge(evidence: &Evidence, cx: &Context) -> Vec<Finding> {
    let judge_one = |(spot, fact): (&Spot, &Fact)| {
        let name = fact.text("name");
        let (least, wanted) = needed(&name, spot.side, cx)?;
        let (have, taken) = (fact.number("setting"), fact.number("taken"));
        let free = have - taken;
        let severity = match free {
            n if n < least => Severity::Blocker,
            n if n < wanted => Severity::Warning,
            _ => return None,
        };
        let consequence = if severity == Severity::Blocker {
            "Replication of at least one database could not start, now or after the switchover."
        } else {
            "The initial copy takes turns and is slower than it could be."
        };
        let what = format!(
            "{name} is {have} on {}, {taken} taken: {free} free, {least} needed, {wanted} for the fastest copy of {} database(s).",
            spot.side,
            cx.databases.len().max(1)
        );
        Some(
            Finding::new(ID, severity, spot, format!("setting {name}"), what, consequence)
                .next("raise-setting")
                .remedy(format!(
                    "ALTER SYSTEM SET {name} = {};  -- then restart the server",
                    taken + wanted + 2
                )),
        )
    };
    evidence.of(0).chain(evidence.of(1)).filter_map(judge_one).collect()
}
