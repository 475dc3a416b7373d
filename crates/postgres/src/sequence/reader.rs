//! Exact values of many sequences by statements that can be prepared ahead, so that reading them in a pause costs
//! execution only. Knows names, no arithmetic.

use serde::{Deserialize, Serialize};

use super::{CHUNK, SequenceName, quoted};
use crate::error::Result;
use crate::session::Session;

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceValue {
    /// The value last given out, or the first one to be given out.
    pub last_value: i64,
    /// Whether `last_value` was given out.
    pub is_called: bool,
}

/// Reads a fixed list of sequences, on every version and with `is_called`.
#[derive(Debug, Clone)]
pub struct SequenceReader {
    statements: Vec<String>,
}

impl SequenceReader {
    /// For these sequences, in this order.
    pub fn new(names: &[SequenceName]) -> Self {
        let branch = |(i, name): (usize, &SequenceName)| {
            format!("SELECT {i}::int4, last_value, is_called FROM {}", quoted(name))
        };
        let statement = |chunk: &[SequenceName]| {
            chunk.iter().enumerate().map(branch).collect::<Vec<_>>().join(" UNION ALL ")
        };
        Self { statements: names.chunks(CHUNK).map(statement).collect() }
    }

    /// Prepares the statements on a session and runs them once, so that plans and catalogue caches are there.
    pub async fn warm(&self, s: &Session) -> Result<()> {
        for sql in &self.statements {
            s.prepared("preparing to read sequences", sql).await?;
        }
        self.read(s).await.map(drop)
    }

    /// The values, in the order of the names. Statements that [`SequenceReader::warm`] prepared on the session are used.
    pub async fn read(&self, s: &Session) -> Result<Vec<SequenceValue>> {
        let doing = "reading sequences";
        let answers = self.statements.iter().map(|sql| async move {
            match s.if_prepared(sql) {
                Some(statement) => s.query(doing, &statement, &[]).await,
                None => s.query(doing, sql.as_str(), &[]).await,
            }
        });
        let mut values = Vec::new();
        for rows in futures::future::try_join_all(answers).await? {
            let from = values.len();
            values.resize(from + rows.len(), None);
            for row in &rows {
                let at = usize::try_from(row.get::<i32>(0)?).unwrap_or(usize::MAX);
                let value = SequenceValue { last_value: row.get(1)?, is_called: row.get(2)? };
                if let Some(place) = values.get_mut(from.saturating_add(at)) {
                    *place = Some(value);
                }
            }
        }
        let complete: Option<Vec<SequenceValue>> = values.into_iter().collect();
        complete.ok_or_else(|| s.unexpected(doing, "a sequence is missing from the answer"))
    }
}
