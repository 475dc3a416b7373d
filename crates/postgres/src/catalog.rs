//! What a database contains, in the measure that copying and checking need: tables with sizes, and the objects that
//! native logical replication leaves behind. Knows no replication object.

use serde::Serialize;

use crate::error::Result;
use crate::quote;
use crate::session::Session;

/// Schemas that hold no user objects, as a condition on `pg_namespace n`.
pub(crate) const USER_SCHEMA: &str =
    "n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgteal') AND n.nspname !~ '^pg_(toast|temp)'";

/// A table by its two names. Orders and compares by schema, then name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize)]
pub struct TableName {
    /// The schema.
    pub schema: String,
    /// The name.
    pub name: String,
}

impl TableName {
    /// From its parts.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// `"schema"."name"`.
    pub fn quoted(&self) -> String {
        quote::qualified(&self.schema, &self.name)
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// What a relation is (PostgreSQL docs, "pg_class", relkind).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RelationKind {
    /// An ordinary table or a partition.
    Table,
    /// A partitioned table, without rows of its own.
    Partitioned,
    /// A foreign table.
    Foreign,
    /// A materialized view.
    MaterializedView,
}

/// A table and its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Table {
    /// The OID here; it differs on every server.
    pub oid: u32,
    /// The name.
    pub name: TableName,
    /// What it is.
    pub kind: RelationKind,
    /// Not written to the WAL: not replicated, empty after a crash.
    pub unlogged: bool,
    /// Whether it is a partition.
    pub is_partition: bool,
    /// Belongs to an extension.
    pub extension: Option<String>,
    /// Heap with TOAST, in bytes.
    pub table_bytes: i64,
    /// Indexes, in bytes.
    pub index_bytes: i64,
    /// Rows as of the last ANALYZE; -1 if never.
    pub estimated_rows: i64,
}

/// Tables, partitioned tables, foreign tables and materialized views of users, by name.
pub async fn relations(s: &Session) -> Result<Vec<Table>> {
    let sql = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence = 'u', c.relispartition,
        e.extname::text, pg_table_size(c.oid), pg_indexes_size(c.oid), c.reltuples::bigint
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
          AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
        LEFT JOIN pg_extension e ON e.oid = d.refobjid
        WHERE c.relkind IN ('r', 'p', 'f', 'm') AND c.relpersistence <> 't' AND {USER_SCHEMA}
        ORDER BY n.nspname, c.relname"
    );
    let doing = "listing tables";
    let rows = s.query(doing, &sql, &[]).await?;
    rows.iter()
        .map(|row| {
            let kind: String = row.get(3)?;
            Ok(Table {
                oid: row.get(0)?,
                name: TableName { schema: row.get(1)?, name: row.get(2)? },
                kind: match kind.as_str() {
                    "r" => RelationKind::Table,
                    "p" => RelationKind::Partitioned,
                    "f" => RelationKind::Foreign,
                    "m" => RelationKind::MaterializedView,
                    other => return Err(s.unexpected(doing, format!("relkind {other}"))),
                },
                unlogged: row.get(4)?,
                is_partition: row.get(5)?,
                extension: row.get(6)?,
                table_bytes: row.get(7)?,
                index_bytes: row.get(8)?,
                estimated_rows: row.get(9)?,
            })
        })
        .collect()
}

/// The tables that hold rows and are replicated: ordinary, logged.
pub async fn tables(s: &Session) -> Result<Vec<Table>> {
    let mut all = relations(s).await?;
    all.retain(|t| t.kind == RelationKind::Table && !t.unlogged);
    Ok(all)
}

/// The number of large objects; they are not replicated.
pub async fn large_objects(s: &Session) -> Result<i64> {
    s.query_one("counting large objects", "SELECT count(*) FROM pg_largeobject_metadata", &[]).await?.get(0)
}

/// Whether users have made anything here: relations, types, functions, extensions other than plpgsql.
pub async fn is_empty(s: &Session) -> Result<bool> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgteal') AND n.nspname !~ '^pg_(toast|temp)')
        AND NOT EXISTS (SELECT 1 FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
          WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgteal'))
        AND NOT EXISTS (SELECT 1 FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
          WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgteal') AND n.nspname !~ '^pg_(toast|temp)')
        AND NOT EXISTS (SELECT 1 FROM pg_extension WHERE extname <> 'plpgsql')
        AND NOT EXISTS (SELECT 1 FROM pg_largeobject_metadata)";
    s.query_one("asking whether the database is empty", sql, &[]).await?.get(0)
}

/// A trigger that fires in apply and copy as well, because it is ENABLE ALWAYS or REPLICA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplicaTrigger {
    /// The table.
    pub table: TableName,
    /// The trigger.
    pub name: String,
    /// `A` always, `R` replica.
    pub enabled: String,
}

/// The triggers that fire in apply workers, ours left out.
pub async fn replica_triggers(s: &Session) -> Result<Vec<ReplicaTrigger>> {
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, t.tgname::text, t.tgenabled::text
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE t.tgenabled IN ('A', 'R') AND NOT t.tgisinternal AND t.tgname !~ '^~pgteal_' AND {USER_SCHEMA}
        ORDER BY 1, 2, 3"
    );
    let rows = s.query("listing triggers that fire in apply workers", &sql, &[]).await?;
    rows.iter()
        .map(|row| {
            let table = TableName { schema: row.get(0)?, name: row.get(1)? };
            Ok(ReplicaTrigger { table, name: row.get(2)?, enabled: row.get(3)? })
        })
        .collect()
}
