//! Everything on a server that looks like ours, told apart by deployment: what to clean up, and what to keep away from.
//! Knows names and comments only, and changes nothing.

use serde::Serialize;

use crate::error::Result;
use crate::names::{self, PREFIX};
use crate::session::Session;

/// The kind of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// A publication.
    Publication,
    /// A subscription.
    Subscription,
    /// A replication slot, of any database of the cluster.
    Slot,
    /// Schema `pgteal`.
    Schema,
    /// An event trigger.
    EventTrigger,
    /// A fence trigger on a table.
    FenceTrigger,
}

/// Something whose name is ours or could be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Object {
    /// The kind.
    pub kind: ObjectKind,
    /// The name; of a fence trigger the table's.
    pub name: String,
    /// The database; `None` for slots of no database.
    pub database: Option<String>,
    /// The deployment it says it belongs to; `None` if it says nothing that can be understood.
    pub deployment: Option<String>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// Belongs to the deployment asked for.
    pub ours: Vec<Object>,
    /// Has our prefix and belongs to another deployment, or to nobody we can name.
    pub foreign: Vec<Object>,
}

/// The objects with our prefix in the session's database, and the slots of the whole cluster. Fence triggers belong to
/// whoever owns the schema that holds their function. Slots that table copies of a subscription left behind are not
/// among them, see [`orphan_sync_slots`].
pub async fn objects(s: &Session, deployment: &str) -> Result<Inventory> {
    let sql = "SELECT 'p', pubname::text, current_database()::text, obj_description(oid, 'pg_publication')
            FROM pg_publication WHERE pubname LIKE $1
        UNION ALL SELECT 'u', subname::text, current_database()::text, obj_description(oid, 'pg_subscription')
            FROM pg_subscription WHERE subname LIKE $1
            AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        UNION ALL SELECT 's', slot_name::text, database::text, NULL FROM pg_replication_slots WHERE slot_name LIKE $1
        UNION ALL SELECT 'n', nspname::text, current_database()::text, obj_description(oid, 'pg_namespace')
            FROM pg_namespace WHERE nspname = 'pgteal'
        UNION ALL SELECT 'e', evtname::text, current_database()::text, obj_description(oid, 'pg_event_trigger')
            FROM pg_event_trigger WHERE evtname LIKE $1
        UNION ALL SELECT 't', t.tgrelid::regclass::text, current_database()::text,
            (SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'pgteal')
            FROM pg_trigger t WHERE t.tgname = '~pgteal_fence' AND t.tgrelid <> coalesce(to_regclass('pgteal.probe'), 0)
        ORDER BY 1, 2";
    let doing = "looking for objects with our prefix";
    let pattern = format!("{PREFIX}%");
    let mut inventory = Inventory::default();
    for row in s.query(doing, sql, &[&pattern]).await? {
        let (kind, name, comment): (String, String, Option<String>) = (row.get(0)?, row.get(1)?, row.get(3)?);
        let kind = match kind.as_str() {
            "p" => ObjectKind::Publication,
            "u" => ObjectKind::Subscription,
            "s" => ObjectKind::Slot,
            "n" => ObjectKind::Schema,
            "e" => ObjectKind::EventTrigger,
            _ => ObjectKind::FenceTrigger,
        };
        if kind != ObjectKind::FenceTrigger && !names::has_prefix(&name) {
            continue;
        }
        let owner = match kind {
            // A slot carries no comment; its name must do.
            ObjectKind::Slot => names::parse_stream(&name).map(|n| n.deployment),
            _ => comment.as_deref().and_then(names::deployment_of_comment).map(str::to_owned),
        };
        let ours = owner.as_deref() == Some(deployment);
        let object = Object { kind, name, database: row.get(2)?, deployment: owner };
        if ours { inventory.ours.push(object) } else { inventory.foreign.push(object) }
    }
    Ok(inventory)
}

/// Inactive slots by which table copies of a subscription `pg_<oid>_sync_..` were read: left behind for ever when the
/// subscriber was destroyed in its initial sync. They say nothing of their owner but the subscriber's system identifier.
pub async fn orphan_sync_slots(s: &Session, subscriber_system_identifier: u64) -> Result<Vec<String>> {
    let sql = "SELECT slot_name::text FROM pg_replication_slots WHERE NOT active
        AND slot_name ~ ('^pg_[0-9]+_sync_[0-9]+_' || $1 || '$') ORDER BY 1";
    let id = subscriber_system_identifier.to_string();
    let rows = s.query("looking for slots that table copies left behind", sql, &[&id]).await?;
    rows.iter().map(|r| r.get(0)).collect()
}
