//! Replication slots. Knows how they are made, moved and dropped, not which stream reads them.

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::error::SqlState;

use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::names;
use crate::quote::literal;
use crate::schema;
use crate::session::Session;
use crate::state;
use crate::wait::{self, Look};

/// Under this key a publishing database remembers which cluster subscribes to it.
const SUBSCRIBER: &str = "subscriber";

/// One slot (PostgreSQL docs, "pg_replication_slots").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Slot {
    /// The name; one name space for the whole cluster.
    pub name: String,
    /// The output plugin of a logical slot.
    pub plugin: Option<String>,
    /// The database of a logical slot.
    pub database: Option<String>,
    /// Goes away with its session.
    pub temporary: bool,
    /// The process that reads it.
    pub active_pid: Option<i32>,
    /// Oldest WAL it keeps.
    pub restart_lsn: Option<Lsn>,
    /// Position the consumer confirmed; `None` while the slot is still being made.
    pub confirmed_flush_lsn: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Bytes that can still be written before the slot may be lost; `None` without a limit.
    pub safe_wal_bytes: Option<i64>,
    /// WAL kept because of this slot, in bytes.
    pub retained_bytes: i64,
    /// Why it can no longer be used (17 and later).
    pub invalidation_reason: Option<String>,
}

/// All slots of the cluster, by name.
pub async fn list(s: &Session) -> Result<Vec<Slot>> {
    let sql = "SELECT r.slot_name::text, r.plugin::text, r.database::text, r.temporary, r.active_pid, r.restart_lsn,
        r.confirmed_flush_lsn, r.wal_status, r.safe_wal_size,
        coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
          ELSE pg_current_wal_lsn() END, r.restart_lsn), 0)::bigint, to_jsonb(r)->>'invalidation_reason'
        FROM pg_replication_slots r ORDER BY 1";
    let rows = s.query("listing replication slots", sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Slot {
                name: row.get(0)?,
                plugin: row.get(1)?,
                database: row.get(2)?,
                temporary: row.get(3)?,
                active_pid: row.get(4)?,
                restart_lsn: row.get(5)?,
                confirmed_flush_lsn: row.get(6)?,
                wal_status: row.get(7)?,
                safe_wal_bytes: row.get(8)?,
                retained_bytes: row.get(9)?,
                invalidation_reason: row.get(10)?,
            })
        })
        .collect()
}

/// One slot by name.
pub async fn find(s: &Session, name: &str) -> Result<Option<Slot>> {
    Ok(list(s).await?.into_iter().find(|slot| slot.name == name))
}

/// The position that a slot's consumer confirmed; `None` without such a slot, or while it is still being made. One round
/// trip: it is asked in the pause.
pub async fn confirmed(s: &Session, name: &str) -> Result<Option<Lsn>> {
    let doing = format!("looking at replication slot {name}");
    let sql = "SELECT confirmed_flush_lsn FROM pg_get_replication_slots() WHERE slot_name = $1";
    let row = s.query_opt(&doing, &s.prepared(&doing, sql).await?, &[&name]).await?;
    row.map_or(Ok(None), |row| row.get(0))
}

/// The slots that belong to a deployment, by their names.
pub async fn of_deployment(s: &Session, deployment: &str) -> Result<Vec<Slot>> {
    let mut all = list(s).await?;
    all.retain(|slot| names::parse_stream(&slot.name).is_some_and(|n| n.deployment == deployment));
    Ok(all)
}

/// Creates a logical slot in the session's database and returns the position from which it decodes. **It waits for every
/// transaction that is open for writing, prepared ones too**; the session's call limit bounds it. A slot that exists
/// must be in this database with this plugin and complete.
pub async fn create_logical(s: &Session, name: &str, plugin: &str) -> Result<Lsn> {
    let doing = format!("creating replication slot {name}");
    if let Some(found) = find(s, name).await? {
        let fits = found.database.as_deref() == Some(s.database()) && found.plugin.as_deref() == Some(plugin);
        return match found.confirmed_flush_lsn {
            Some(lsn) if fits && found.wal_status.as_deref() != Some("lost") => Ok(lsn),
            Some(_) if !fits => Err(Error::Foreign {
                server: s.server().to_owned(),
                database: s.database().to_owned(),
                object: format!("replication slot {name}"),
                reason: format!(
                    "it is for database {} with plugin {}",
                    found.database.as_deref().unwrap_or("none"),
                    found.plugin.as_deref().unwrap_or("none")
                ),
            }),
            Some(_) => Err(s.unexpected(&doing, "it exists and has lost its WAL")),
            None => {
                Err(s.unexpected(&doing, "it exists and is not complete; its creation may still be waiting"))
            }
        };
    }
    // The wait is one for locks; only the call's own bound shall end it.
    let sql = format!(
        "SET LOCAL lock_timeout = 0; SELECT lsn FROM pg_create_logical_replication_slot({}, {})",
        literal(name),
        literal(plugin)
    );
    let rows = s.text_rows(&doing, &sql).await?;
    let lsn = rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
    lsn.ok_or_else(|| s.unexpected(&doing, "the server did not tell the slot's position"))
}

/// Moves a slot forward to `upto`, or to what is flushed if that is less, and returns where it stands. Changes before
/// that will never be sent. A slot that is already further stays where it is. Does not wait for transactions.
pub async fn advance(s: &Session, name: &str, upto: Lsn) -> Result<Lsn> {
    let doing = format!("advancing replication slot {name}");
    let sql = "SELECT end_lsn FROM pg_replication_slot_advance($1, $2)";
    match s.query_one(&doing, &s.prepared(&doing, sql).await?, &[&name, &upto]).await {
        // "cannot advance replication slot to .., minimum is ..": it is there already.
        Err(e)
            if e.is(&SqlState::INVALID_PARAMETER_VALUE)
                || e.is(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) =>
        {
            match find(s, name).await?.and_then(|slot| slot.confirmed_flush_lsn) {
                Some(lsn) if lsn >= upto => Ok(lsn),
                _ => Err(e),
            }
        }
        other => other?.get(0),
    }
}

/// Moves a slot to the end of the flushed WAL in one round trip; with [`crate::wal::flush`] before it, to the end of
/// everything that was committed.
pub async fn advance_to_now(s: &Session, name: &str) -> Result<Lsn> {
    let doing = format!("advancing replication slot {name}");
    let sql = "SELECT end_lsn FROM pg_replication_slot_advance($1, pg_current_wal_insert_lsn())";
    s.query_one(&doing, &s.prepared(&doing, sql).await?, &[&name]).await?.get(0)
}

/// Drops a slot if it exists. Whoever reads it is ended, within `bound`: a reader whose subscription could not be dropped
/// comes back again and again.
pub async fn drop(s: &Session, name: &str, bound: Duration) -> Result<()> {
    let doing = format!("dropping replication slot {name}");
    wait::until(
        s,
        format!("replication slot {name} to be dropped"),
        bound,
        Duration::from_millis(50),
        || async {
            let Some(slot) = find(s, name).await? else { return Ok(Look::Reached(())) };
            match s.query_one(&doing, "SELECT pg_drop_replication_slot($1)", &[&name]).await {
                Ok(_) => Ok(Look::Reached(())),
                Err(e) if e.is(&SqlState::OBJECT_IN_USE) => {
                    terminate_reader(s, name).await?;
                    let reader = slot.active_pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
                    Ok(Look::NotYet(format!("in use by process {reader}")))
                }
                Err(e) if e.is(&SqlState::UNDEFINED_OBJECT) => Ok(Look::Reached(())),
                Err(e) => Err(e),
            }
        },
    )
    .await
}

/// Remembers in this database which cluster subscribes to it (its system identifier): the slots of its table copies must be
/// known also when it cannot be asked any more.
pub async fn remember_subscriber(s: &Session, cluster: u64, epoch: i64, deployment: &str) -> Result<()> {
    // As text: JSON numbers are floating point to some readers.
    state::put(s, SUBSCRIBER, &cluster.to_string().into(), epoch, deployment).await
}

/// The cluster that [`remember_subscriber`] told of.
async fn subscriber(s: &Session) -> Result<Option<u64>> {
    if schema::owner(s).await?.is_none() {
        return Ok(None);
    }
    let entry = state::get(s, SUBSCRIBER).await?;
    Ok(entry.and_then(|entry| entry.value.as_str()?.parse().ok()))
}

/// The slots in the session's database that the subscriber's table copies have made:
/// `pg_<subscription>_sync_<table>_<cluster>` (PostgreSQL's `ReplicationSlotNameForTablesync`). Each stands still while its
/// table is copied, and a subscription that is dropped while its publisher is out of reach leaves them behind.
pub async fn of_table_copies(s: &Session) -> Result<Vec<Slot>> {
    let Some(subscriber) = subscriber(s).await? else { return Ok(Vec::new()) };
    let mut all = list(s).await?;
    all.retain(|slot| {
        slot.database.as_deref() == Some(s.database()) && is_of_table_copy(&slot.name, subscriber)
    });
    Ok(all)
}

fn is_of_table_copy(name: &str, subscriber: u64) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = name.split('_').collect();
    match parts[..] {
        ["pg", subscription, "sync", table, cluster] => {
            is_number(subscription) && is_number(table) && cluster == subscriber.to_string()
        }
        _ => false,
    }
}

/// Ends the process that reads a slot; it may come back at once if its subscription is enabled.
pub async fn terminate_reader(s: &Session, name: &str) -> Result<bool> {
    let sql = "WITH reader AS MATERIALIZED (SELECT active_pid FROM pg_replication_slots
            WHERE slot_name = $1 AND active_pid IS NOT NULL)
        SELECT coalesce(bool_or(pg_terminate_backend(active_pid)), false) FROM reader";
    s.query_one(&format!("ending the reader of replication slot {name}"), sql, &[&name]).await?.get(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_table_copies_are_told_by_their_name_and_cluster() {
        for (name, expected) in [
            ("pg_16433_sync_16394_7654321012345678901", true),
            ("pg_16433_sync_16394_7654321012345678902", false),
            ("pg_16433_sync__7654321012345678901", false),
            ("pg_x_sync_16394_7654321012345678901", false),
            ("pgteal_abcd2345_fwd_0", false),
        ] {
            assert_eq!(is_of_table_copy(name, 7_654_321_012_345_678_901), expected, "{name}");
        }
    }
}
