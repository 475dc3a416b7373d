//! Sequences: read exactly, set in batches, advanced ahead of time, and checked in the pause. Knows one server; carrying
//! values from one to another is the caller's.

use serde::Serialize;

use crate::catalog::USER_SCHEMA;
use crate::error::Result;
use crate::quote;
use crate::session::Session;

mod advance;
mod reader;

pub use advance::{Ahead, ahead_of};
pub use reader::{SequenceReader, SequenceValue};

/// Sequences per statement: bounds the size of one message and one transaction.
const CHUNK: usize = 1000;

/// A sequence by its two names; the same on every server, while OIDs differ.
pub type SequenceName = crate::catalog::TableName;

/// One sequence (PostgreSQL docs, "pg_sequence").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sequence {
    /// The OID on this server.
    pub oid: u32,
    /// The name.
    pub name: SequenceName,
    /// `smallint`, `integer` or `bigint`.
    pub data_type: String,
    /// START
    pub start: i64,
    /// MINVALUE
    pub min: i64,
    /// MAXVALUE
    pub max: i64,
    /// INCREMENT, negative for a descending one.
    pub increment: i64,
    /// CYCLE
    pub cycle: bool,
    /// CACHE: values a session may hold back; `last_value` already covers them.
    pub cache: i64,
    /// Not written to the WAL.
    pub unlogged: bool,
    /// The value last given out, or the first one to be given out.
    pub last_value: i64,
    /// Whether `last_value` was given out.
    pub is_called: bool,
}

/// All sequences of users with their exact values, by name. `pg_sequences.last_value` is not used: it is NULL while
/// `is_called` is false, and so hides `ALTER SEQUENCE .. RESTART` and `setval(.., false)`.
pub async fn list(s: &Session) -> Result<Vec<Sequence>> {
    let sql = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text, format_type(q.seqtypid, NULL), q.seqstart, q.seqmin, q.seqmax,
        q.seqincrement, q.seqcycle, q.seqcache, c.relpersistence = 'u'
        FROM pg_sequence q JOIN pg_class c ON c.oid = q.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relpersistence <> 't' AND {USER_SCHEMA} ORDER BY 2, 3"
    );
    let rows = s.query("listing sequences", &sql, &[]).await?;
    let mut sequences = rows
        .iter()
        .map(|row| {
            Ok(Sequence {
                oid: row.get(0)?,
                name: SequenceName { schema: row.get(1)?, name: row.get(2)? },
                data_type: row.get(3)?,
                start: row.get(4)?,
                min: row.get(5)?,
                max: row.get(6)?,
                increment: row.get(7)?,
                cycle: row.get(8)?,
                cache: row.get(9)?,
                unlogged: row.get(10)?,
                last_value: 0,
                is_called: false,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let names: Vec<SequenceName> = sequences.iter().map(|q| q.name.clone()).collect();
    let values = SequenceReader::new(&names).read(s).await?;
    for (sequence, value) in sequences.iter_mut().zip(values) {
        (sequence.last_value, sequence.is_called) = (value.last_value, value.is_called);
    }
    Ok(sequences)
}

/// Sets sequences, a thousand per statement. A name that does not exist here is an error (42P01) before anything of its
/// chunk is set. `setval` is not undone by a rollback, so a value out of bounds (22003) may leave part of a chunk done;
/// setting them again is harmless.
pub async fn set(s: &Session, values: &[(SequenceName, SequenceValue)]) -> Result<()> {
    // The aggregates see every name before the first value is set.
    let sql = "SELECT count(setval(y.q, y.v, y.c)) FROM
        (SELECT array_agg(q::regclass) AS q, array_agg(v) AS v, array_agg(c) AS c
            FROM unnest($1::text[], $2::bigint[], $3::bool[]) x(q, v, c)) a, unnest(a.q, a.v, a.c) y(q, v, c)";
    for chunk in values.chunks(CHUNK) {
        let doing = format!("setting {} sequences", chunk.len());
        let names: Vec<String> = chunk.iter().map(|(name, _)| name.quoted()).collect();
        let last: Vec<i64> = chunk.iter().map(|(_, v)| v.last_value).collect();
        let called: Vec<bool> = chunk.iter().map(|(_, v)| v.is_called).collect();
        s.query_one(&doing, &s.prepared(&doing, sql).await?, &[&names, &last, &called]).await?;
    }
    Ok(())
}

/// A bound that a sequence must not have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// The sequence's OID on this server.
    pub oid: u32,
    /// The last value allowed.
    pub limit: i64,
    /// Whether it counts upward.
    pub ascending: bool,
}

/// The OIDs of those sequences that have given out a value beyond their bound, in one round trip, whatever their number
/// (OIDs, because looking names up is most of the cost). A sequence that was set with `is_called = false` is not seen
/// here, only by [`SequenceReader`].
pub async fn moved_past(s: &Session, watches: &[Watch]) -> Result<Vec<u32>> {
    let doing = "checking sequences";
    // regclass of an OID involves no name; the CASE keeps the function from being called twice.
    let sql = "SELECT o FROM unnest($1::oid[], $2::bigint[], $3::bool[]) x(o, v, up),
        LATERAL (SELECT pg_sequence_last_value(o::regclass) AS last OFFSET 0) l
        WHERE CASE WHEN up THEN l.last > v ELSE l.last < v END";
    let oids: Vec<u32> = watches.iter().map(|w| w.oid).collect();
    let limits: Vec<i64> = watches.iter().map(|w| w.limit).collect();
    let up: Vec<bool> = watches.iter().map(|w| w.ascending).collect();
    let rows = s.query(doing, &s.prepared(doing, sql).await?, &[&oids, &limits, &up]).await?;
    rows.iter().map(|r| r.get(0)).collect()
}

pub(crate) fn quoted(name: &SequenceName) -> String {
    quote::qualified(&name.schema, &name.name)
}
