//! Replica identities: what tells the subscriber which row an UPDATE or DELETE means. Knows the rules by which the
//! server takes an identity, not when a publication is made.

use serde::{Deserialize, Serialize};

use crate::catalog::{TableName, USER_SCHEMA};
use crate::error::Result;
use crate::quote::ident;
use crate::session::Session;

/// The declared identity (PostgreSQL docs, "ALTER TABLE: REPLICA IDENTITY").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaIdentity {
    /// The primary key, if there is one that is not deferrable.
    Default,
    /// This unique index.
    Index(String),
    /// The whole old row.
    Full,
    /// None: UPDATE and DELETE fail as soon as a publication includes the table.
    Nothing,
}

impl ReplicaIdentity {
    /// The clause after `REPLICA IDENTITY`.
    pub fn clause(&self) -> String {
        match self {
            ReplicaIdentity::Default => "DEFAULT".to_owned(),
            ReplicaIdentity::Index(name) => format!("USING INDEX {}", ident(name)),
            ReplicaIdentity::Full => "FULL".to_owned(),
            ReplicaIdentity::Nothing => "NOTHING".to_owned(),
        }
    }
}

/// A table's identity, declared and effective.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableIdentity {
    /// The table; partitions count by themselves, since a partition does not inherit its parent's setting.
    pub table: TableName,
    /// Partitioned tables have an identity of their own only on paper; it matters for new partitions' templates.
    pub partitioned: bool,
    /// Whether it is a partition.
    pub is_partition: bool,
    /// What is declared.
    pub declared: ReplicaIdentity,
    /// Whether UPDATE and DELETE can be published as it stands.
    pub usable: bool,
    /// Columns of the effective key, in index order; empty under FULL or without identity.
    pub key_columns: Vec<String>,
    /// A unique, valid, immediate index on NOT NULL columns without predicate or expression, the smallest of them.
    pub candidate_index: Option<String>,
    /// Columns without an equality operator; under FULL an UPDATE or DELETE would stop the apply worker.
    pub no_equality: Vec<String>,
    /// Rows as of the last ANALYZE; FULL on a large table is slow to apply.
    pub estimated_rows: i64,
}

const INDEX_QUALIFIES: &str =
    "i.indisunique AND i.indisvalid AND i.indislive AND i.indimmediate AND i.indpred IS NULL
    AND i.indexprs IS NULL AND NOT EXISTS (SELECT 1 FROM unnest(i.indkey[0:i.indnkeyatts-1]) k
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k WHERE NOT a.attnotnull)";

/// The identity of every logged user table, partitioned tables included, by name.
pub async fn list(s: &Session) -> Result<Vec<TableIdentity>> {
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, c.relkind = 'p', c.relispartition, c.relreplident::text,
        (SELECT ic.relname::text FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid
          WHERE i.indrelid = c.oid AND i.indisreplident),
        key.oid IS NOT NULL OR c.relreplident = 'f',
        coalesce((SELECT array_agg(a.attname::text ORDER BY k.pos) FROM pg_index i
          CROSS JOIN unnest(i.indkey[0:i.indnkeyatts-1]) WITH ORDINALITY k(att, pos)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.att
          WHERE i.indexrelid = key.oid), '{{}}'),
        (SELECT ic.relname::text FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid
          WHERE i.indrelid = c.oid AND {INDEX_QUALIFIES} AND NOT i.indisprimary
          ORDER BY i.indnkeyatts, pg_relation_size(ic.oid), ic.relname LIMIT 1),
        coalesce((SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
          JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype
          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
            AND coalesce(b.oid, t.oid) IN ('json'::regtype, 'xml'::regtype, 'point'::regtype, 'box'::regtype,
              'polygon'::regtype, 'line'::regtype, 'path'::regtype, 'lseg'::regtype, 'circle'::regtype)), '{{}}'),
        c.reltuples::bigint
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN LATERAL (SELECT i.indexrelid AS oid FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid
          AND ((c.relreplident = 'd' AND i.indisprimary AND i.indimmediate)
            OR (c.relreplident = 'i' AND i.indisreplident)) LIMIT 1) key ON true
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND {USER_SCHEMA} ORDER BY 1, 2"
    );
    let doing = "reading replica identities";
    let rows = s.query(doing, &sql, &[]).await?;
    rows.iter()
        .map(|row| {
            let declared: String = row.get(4)?;
            let index: Option<String> = row.get(5)?;
            Ok(TableIdentity {
                table: TableName { schema: row.get(0)?, name: row.get(1)? },
                partitioned: row.get(2)?,
                is_partition: row.get(3)?,
                declared: match (declared.as_str(), index) {
                    ("d", _) => ReplicaIdentity::Default,
                    ("f", _) => ReplicaIdentity::Full,
                    ("i", Some(index)) => ReplicaIdentity::Index(index),
                    // The index was dropped: the server then behaves as with NOTHING.
                    ("i", None) | ("n", _) => ReplicaIdentity::Nothing,
                    (other, _) => return Err(s.unexpected(doing, format!("relreplident {other}"))),
                },
                usable: row.get(6)?,
                key_columns: row.get(7)?,
                candidate_index: row.get(8)?,
                no_equality: row.get(9)?,
                estimated_rows: row.get(10)?,
            })
        })
        .collect()
}

/// Declares an identity. Takes ACCESS EXCLUSIVE for a moment, so the session needs a `lock_timeout` and the caller a
/// retry. To put a former one back is the same call.
pub async fn set(s: &Session, table: &TableName, identity: &ReplicaIdentity) -> Result<()> {
    let sql = format!("ALTER TABLE {} REPLICA IDENTITY {}", table.quoted(), identity.clause());
    s.batch(&format!("setting the replica identity of {table}"), &sql).await
}
