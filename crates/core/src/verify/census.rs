//! Owns the list of tables to compare and by which key. Refuses to compare them.

use std::collections::{BTreeMap, BTreeSet};

use pgteal_postgres::catalog::{self, RelationKind, TableName};
use pgteal_postgres::digest::RowKey;
use pgteal_postgres::{Session, identity};

use super::Result;
use super::report::{Outcome, TableReport};

/// One table to compare.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) table: TableName,
    /// Columns by which a row can be told, if there are any.
    pub(super) key: Option<RowKey>,
    pub(super) estimated_rows: i64,
    pub(super) bytes: i64,
}

/// The tables of one database that are to be compared, larger first, and what can be said of the others at once.
pub(super) async fn take(from: &Session, to: &Session) -> Result<(Vec<Candidate>, Vec<TableReport>)> {
    let (here, there) = (catalog::relations(from).await?, catalog::relations(to).await?);
    let known: BTreeSet<&TableName> = there.iter().map(|t| &t.name).collect();
    let keys: BTreeMap<TableName, Vec<String>> =
        identity::list(from).await?.into_iter().map(|i| (i.table, i.key_columns)).collect();
    let (mut candidates, mut settled) = (Vec::new(), Vec::new());
    let report = |table: &TableName, outcome| TableReport {
        database: from.database().to_owned(),
        table: table.to_string(),
        rows: None,
        digest: None,
        outcome,
    };
    for table in &here {
        let why = match table.kind {
            RelationKind::Partitioned => continue,
            RelationKind::Foreign => Some("a foreign table has no rows of its own"),
            RelationKind::MaterializedView => Some("a materialized view is refreshed, not replicated"),
            RelationKind::Table if table.unlogged => Some("an unlogged table is not replicated"),
            RelationKind::Table => None,
        };
        if let Some(why) = why {
            settled.push(report(&table.name, Outcome::Skipped { why: why.to_owned() }));
        } else if !known.contains(&table.name) {
            settled.push(report(&table.name, Outcome::Missing { on: to.server().to_owned() }));
        } else {
            let key = keys.get(&table.name).filter(|columns| !columns.is_empty());
            candidates.push(Candidate {
                table: table.name.clone(),
                key: key.map(|columns| RowKey { columns: columns.clone() }),
                estimated_rows: table.estimated_rows,
                bytes: table.table_bytes,
            });
        }
    }
    let mine: BTreeSet<&TableName> = here.iter().map(|t| &t.name).collect();
    let strangers = there.iter().filter(|t| t.kind == RelationKind::Table && !mine.contains(&t.name));
    settled.extend(strangers.map(|t| report(&t.name, Outcome::Missing { on: from.server().to_owned() })));
    candidates.sort_by(|a, b| (b.bytes, &a.table).cmp(&(a.bytes, &b.table)));
    Ok((candidates, settled))
}
