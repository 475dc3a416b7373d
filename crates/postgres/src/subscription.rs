//! Subscriptions: made disabled and without a slot, enabled, watched, and dropped even when the publisher is gone. Knows
//! this server's half only.

use std::time::Duration;

use serde::Serialize;

use crate::conninfo::ConnInfo;
use crate::error::{Error, Result};
use crate::lsn::Lsn;
use crate::names;
use crate::quote::{ident, literal};
use crate::session::Session;
use crate::wait::{self, Look};

/// A subscription to be made.
#[derive(Debug, Clone)]
pub struct NewSubscription<'a> {
    /// Its name; also the `application_name` by which the publisher sees its worker.
    pub name: &'a str,
    /// The publication over there.
    pub publication: &'a str,
    /// The slot over there; it need not exist yet.
    pub slot: &'a str,
    /// The publisher as this server reaches it.
    pub publisher: &'a ConnInfo,
    /// The database over there.
    pub database: &'a str,
    /// Whether the rows that exist are copied.
    pub copy_data: bool,
    /// The deployment it belongs to.
    pub deployment: &'a str,
}

/// One subscription and its apply worker (PostgreSQL docs, "pg_subscription", "pg_stat_subscription").
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Subscription {
    /// The OID; `pg_<oid>` is its replication origin.
    pub oid: u32,
    /// The name.
    pub name: String,
    /// Whether its worker shall run.
    pub enabled: bool,
    /// The slot at the publisher.
    pub slot: Option<String>,
    /// The publications it reads.
    pub publications: Vec<String>,
    /// The deployment named by the comment.
    pub deployment: Option<String>,
    /// The apply worker, if it runs.
    pub worker_pid: Option<i32>,
    /// Last position received; says nothing about what was applied.
    pub received_lsn: Option<Lsn>,
    /// Last position reported to the publisher.
    pub latest_end_lsn: Option<Lsn>,
    /// Seconds since the publisher's last message.
    pub last_message_age_s: Option<f64>,
    /// Failures of apply since the start of statistics (15 and later).
    pub apply_errors: Option<i64>,
    /// Failures of table copies (15 and later).
    pub sync_errors: Option<i64>,
}

/// The subscriptions of this database, by name. Needs superuser.
pub async fn list(s: &Session) -> Result<Vec<Subscription>> {
    let errors = if s.version().major >= 15 {
        "(SELECT e.apply_error_count FROM pg_stat_subscription_stats e WHERE e.subid = u.oid),
         (SELECT e.sync_error_count FROM pg_stat_subscription_stats e WHERE e.subid = u.oid)"
    } else {
        "NULL::bigint, NULL::bigint"
    };
    let sql = format!(
        "SELECT u.oid, u.subname::text, u.subenabled, u.subslotname::text, u.subpublications,
        obj_description(u.oid, 'pg_subscription'), w.pid, w.received_lsn, w.latest_end_lsn,
        extract(epoch FROM clock_timestamp() - w.last_msg_receipt_time)::float8, {errors}
        FROM pg_subscription u LEFT JOIN pg_stat_subscription w ON w.subid = u.oid AND w.relid IS NULL
          AND coalesce(to_jsonb(w)->>'leader_pid', '') = ''
        WHERE u.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 2"
    );
    let rows = s.query("listing subscriptions", &sql, &[]).await?;
    rows.iter()
        .map(|row| {
            let comment: Option<String> = row.get(5)?;
            Ok(Subscription {
                oid: row.get(0)?,
                name: row.get(1)?,
                enabled: row.get(2)?,
                slot: row.get(3)?,
                publications: row.get(4)?,
                deployment: comment.as_deref().and_then(names::deployment_of_comment).map(str::to_owned),
                worker_pid: row.get(6)?,
                received_lsn: row.get(7)?,
                latest_end_lsn: row.get(8)?,
                last_message_age_s: row.get(9)?,
                apply_errors: row.get(10)?,
                sync_errors: row.get(11)?,
            })
        })
        .collect()
}

/// One subscription by name.
pub async fn find(s: &Session, name: &str) -> Result<Option<Subscription>> {
    Ok(list(s).await?.into_iter().find(|u| u.name == name))
}

/// Creates a disabled subscription without touching the slot; it connects to the publisher to read the table list. The
/// text, which holds the publisher's password, is kept out of the log. One that exists must be ours.
pub async fn create(s: &Session, new: &NewSubscription<'_>) -> Result<()> {
    let doing = format!("creating subscription {}", new.name);
    if let Some(found) = find(s, new.name).await? {
        require_ours(s, &found, new.deployment)?;
        let expected = found.slot.as_deref() == Some(new.slot) && found.publications == [new.publication];
        return if expected {
            Ok(())
        } else {
            Err(s.unexpected(&doing, "it exists with another slot or publication"))
        };
    }
    let mut options = format!(
        "enabled = false, create_slot = false, slot_name = {}, copy_data = {}, streaming = off, binary = false,
         synchronous_commit = 'off'",
        literal(new.slot),
        new.copy_data
    );
    if s.version().major >= 15 {
        // A prepared transaction would get another name here, and the application's COMMIT PREPARED would not find it.
        options.push_str(", two_phase = false, disable_on_error = false");
    }
    if s.version().major >= 16 {
        // run_as_owner: as all versions before 16 did; without it FORCE ROW LEVEL SECURITY stops the worker. origin = any:
        // as all versions before 16 did; what somebody else's replication wrote over there under an origin is data as well.
        // Of our own only one direction runs at a time, and each begins past what the other has applied.
        options.push_str(", run_as_owner = true, origin = any");
    }
    let sql = format!(
        "CREATE SUBSCRIPTION {name} CONNECTION {conninfo} PUBLICATION {publication} WITH ({options});
         COMMENT ON SUBSCRIPTION {name} IS {comment}",
        name = ident(new.name),
        conninfo = literal(&new.publisher.to_libpq(new.database, new.name)),
        publication = ident(new.publication),
        comment = literal(&names::comment(new.deployment)),
    );
    s.batch_unlogged(&doing, &sql).await
}

/// Starts the worker. Versions 14 and 15 limit how often a worker is started by `wal_retrieve_retry_interval`.
pub async fn enable(s: &Session, name: &str) -> Result<()> {
    s.batch(&format!("enabling subscription {name}"), &format!("ALTER SUBSCRIPTION {} ENABLE", ident(name)))
        .await
}

/// Stops the worker; it may take a moment to be gone, see [`wait_stopped`].
pub async fn disable(s: &Session, name: &str) -> Result<()> {
    s.batch(&format!("disabling subscription {name}"), &format!("ALTER SUBSCRIPTION {} DISABLE", ident(name)))
        .await
}

/// Waits until no worker of the subscription is left.
pub async fn wait_stopped(s: &Session, name: &str, bound: Duration) -> Result<()> {
    wait::until(s, format!("the workers of {name} to stop"), bound, Duration::from_millis(20), || async {
        let sql = "SELECT count(*) FROM pg_stat_subscription WHERE subname = $1 AND pid IS NOT NULL";
        let left: i64 = s.query_one("counting workers", sql, &[&name]).await?.get(0)?;
        Ok(if left == 0 { Look::Reached(()) } else { Look::NotYet(format!("{left} workers")) })
    })
    .await
}

/// Waits until the apply worker runs and returns its process id.
pub async fn wait_started(s: &Session, name: &str, bound: Duration) -> Result<i32> {
    wait::until(s, format!("the apply worker of {name}"), bound, Duration::from_millis(20), || async {
        Ok(match find(s, name).await? {
            None => Look::NotYet("no such subscription".to_owned()),
            Some(Subscription { enabled: false, .. }) => Look::NotYet("disabled".to_owned()),
            Some(u) => match u.worker_pid {
                Some(pid) => Look::Reached(pid),
                None => Look::NotYet("enabled, no worker".to_owned()),
            },
        })
    })
    .await
}

/// Reads the publisher's table list again; the subscription must be enabled.
pub async fn refresh(s: &Session, name: &str, copy_data: bool) -> Result<()> {
    let sql =
        format!("ALTER SUBSCRIPTION {} REFRESH PUBLICATION WITH (copy_data = {copy_data})", ident(name));
    s.batch(&format!("refreshing subscription {name}"), &sql).await
}

/// Drops a subscription of ours if it exists and leaves its slot at the publisher alone, so that it works with the
/// publisher gone; dropping that slot is the caller's duty.
pub async fn drop(s: &Session, name: &str, deployment: &str) -> Result<()> {
    let Some(found) = find(s, name).await? else { return Ok(()) };
    require_ours(s, &found, deployment)?;
    let quoted = ident(name);
    let sql = format!(
        "ALTER SUBSCRIPTION {quoted} DISABLE; ALTER SUBSCRIPTION {quoted} SET (slot_name = NONE);
         DROP SUBSCRIPTION {quoted}"
    );
    s.batch(&format!("dropping subscription {name}"), &sql).await
}

fn require_ours(s: &Session, found: &Subscription, deployment: &str) -> Result<()> {
    if found.deployment.as_deref() == Some(deployment) {
        return Ok(());
    }
    Err(Error::Foreign {
        server: s.server().to_owned(),
        database: s.database().to_owned(),
        object: format!("subscription {}", found.name),
        reason: match &found.deployment {
            Some(other) => format!("its comment names deployment {other}"),
            None => "it has no comment of ours".to_owned(),
        },
    })
}
