//! Digests of rows: equal for equal rows on every version from 14 to 18, whatever their order. Knows one server; what a
//! difference means is for others.
//!
//! A row's hash is `hashtextextended` of its text form, a sum makes the order irrelevant and counts duplicates. The text
//! form is pinned by every session's startup settings (dates, intervals, time zone, floats, bytea) and by
//! `lc_monetary` here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::catalog::TableName;
use crate::error::Result;
use crate::quote::{ident, literal};
use crate::session::Session;

/// Count and hash of a set of rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Digest {
    /// The number of rows.
    pub rows: i64,
    /// Sum of the rows' 64-bit hashes, as a decimal number of any size.
    pub sum: String,
}

/// What identifies a row of a table: the replica identity's columns, the same on both servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowKey {
    /// Column names, in the key's order.
    pub columns: Vec<String>,
}

/// A key's values as text, in the order of the key's columns.
pub type KeyValues = Vec<Option<String>>;

/// The alias is one that no column has, and `(alias.*)` is the row even then.
const ROW: &str = "(\"~row\".*)::text";

fn hash(of: &str, seed: u32) -> String {
    format!("hashtextextended({of}, {seed})")
}

/// Sessions that take digests must pin this too; a server takes `C` everywhere.
pub async fn pin(s: &Session) -> Result<()> {
    s.batch("pinning the text form of rows", "SET lc_monetary = 'C'").await
}

/// The digest of a table's own rows (a partition's, not its parent's).
pub async fn table(s: &Session, table: &TableName) -> Result<Digest> {
    pin(s).await?;
    let sql = format!(
        "SELECT count(*), coalesce(sum({}::numeric), 0)::text FROM ONLY {} AS \"~row\"",
        hash(ROW, 0),
        table.quoted()
    );
    let row = s.query_one(&format!("taking the digest of {table}"), &sql, &[]).await?;
    Ok(Digest { rows: row.get(0)?, sum: row.get(1)? })
}

impl RowKey {
    fn columns_as_text(&self) -> String {
        let column = |c: &String| format!("\"~row\".{}::text", ident(c));
        self.columns.iter().map(column).collect::<Vec<_>>().join(", ")
    }

    fn bucket(&self, buckets: u32) -> String {
        let text = format!("ROW({})::text", self.columns_as_text());
        format!("({} & {})", hash(&text, 1), buckets.next_power_of_two().max(1) - 1)
    }
}

/// The digest of each of `buckets` (rounded up to a power of two) groups of rows, grouped by the hash of the key, in one
/// scan. Empty buckets are left out.
pub async fn buckets(
    s: &Session,
    table: &TableName,
    key: &RowKey,
    buckets: u32,
) -> Result<BTreeMap<i64, Digest>> {
    pin(s).await?;
    let sql = format!(
        "SELECT {}, count(*), coalesce(sum({}::numeric), 0)::text FROM ONLY {} AS \"~row\" GROUP BY 1",
        key.bucket(buckets),
        hash(ROW, 0),
        table.quoted()
    );
    let rows = s.query(&format!("taking the digests of {table} by bucket"), &sql, &[]).await?;
    rows.iter().map(|r| Ok((r.get(0)?, Digest { rows: r.get(1)?, sum: r.get(2)? }))).collect()
}

/// Key and hash of every row in some buckets, at most `limit` rows, in one scan. The same key may come more than once if
/// it is not unique.
pub async fn rows_of_buckets(
    s: &Session,
    table: &TableName,
    key: &RowKey,
    buckets: u32,
    wanted: &[i64],
    limit: u32,
) -> Result<Vec<(KeyValues, i64)>> {
    pin(s).await?;
    let sql = format!(
        "SELECT ARRAY[{}], {} FROM ONLY {} AS \"~row\" WHERE {} = ANY($1) LIMIT {limit}",
        key.columns_as_text(),
        hash(ROW, 0),
        table.quoted(),
        key.bucket(buckets),
    );
    let rows = s.query(&format!("taking the digests of rows of {table}"), &sql, &[&wanted]).await?;
    rows.iter().map(|r| Ok((r.get(0)?, r.get(1)?))).collect()
}

/// The hashes of the rows with these keys, by key, using the key's index. A key without a row is left out; a key with
/// several rows has the sum of their hashes (wrapping), so that it is comparable.
pub async fn rows_by_key(
    s: &Session,
    table: &TableName,
    key: &RowKey,
    keys: &[KeyValues],
) -> Result<BTreeMap<KeyValues, i64>> {
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    pin(s).await?;
    let types = column_types(s, table, key).await?;
    let count = key.columns.len();
    let names = |prefix: &str| (0..count).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>().join(", ");
    let arrays = (1..=count).map(|i| format!("${i}::text[]")).collect::<Vec<_>>().join(", ");
    let matches = key
        .columns
        .iter()
        .zip(&types)
        .enumerate()
        .map(|(i, (column, ty))| format!("\"~row\".{} = \"~key\".k{i}::{ty}", ident(column)));
    let sql = format!(
        "SELECT ARRAY[{}], {} FROM unnest({arrays}) AS \"~key\"({}) JOIN ONLY {} AS \"~row\" ON {}",
        key.columns_as_text(),
        hash(ROW, 0),
        names("k"),
        table.quoted(),
        matches.collect::<Vec<_>>().join(" AND "),
    );
    let column = |i: usize| keys.iter().map(|k| k.get(i).cloned().flatten()).collect::<Vec<Option<String>>>();
    let values: Vec<Vec<Option<String>>> = (0..count).map(column).collect();
    let params: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = values.iter().map(|v| v as _).collect();
    let mut found: BTreeMap<KeyValues, i64> = BTreeMap::new();
    for row in s.query(&format!("taking the digests of rows of {table} by key"), &sql, &params).await? {
        let hash: i64 = row.get(1)?;
        found.entry(row.get(0)?).and_modify(|sum| *sum = sum.wrapping_add(hash)).or_insert(hash);
    }
    Ok(found)
}

async fn column_types(s: &Session, table: &TableName, key: &RowKey) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT format_type(a.atttypid, a.atttypmod) FROM unnest($1::text[]) WITH ORDINALITY k(name, pos)
        JOIN pg_attribute a ON a.attrelid = {}::regclass AND a.attname = k.name AND NOT a.attisdropped ORDER BY k.pos",
        literal(&table.quoted())
    );
    let doing = format!("reading the key columns of {table}");
    let types: Vec<String> =
        s.query(&doing, &sql, &[&key.columns]).await?.iter().map(|r| r.get(0)).collect::<Result<_>>()?;
    if types.len() == key.columns.len() {
        return Ok(types);
    }
    Err(s.unexpected(&doing, format!("not all of the columns {} exist", key.columns.join(", "))))
}
