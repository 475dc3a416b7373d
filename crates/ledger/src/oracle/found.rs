//! What the database holds of one workload, read in one snapshot. Refuses to judge it.

use std::collections::HashMap;

use futures::TryStreamExt;
use tokio_postgres::{Client, Row};

use crate::book::{Book, Thing};
use crate::layout::Layout;

use super::{OracleError, Place};

/// One row some session created.
#[derive(Debug, Clone, Copy)]
pub(super) struct FoundRow {
    pub(super) revision: i64,
    pub(super) touched: i64,
    pub(super) echo: i64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct FoundSession {
    pub(super) last_seq: i64,
    pub(super) chain: i64,
}

/// Everything read. Lists, not single values, wherever a broken replication could leave two.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Sequence-fed numbers by transaction.
    pub(super) ledger: HashMap<Place, Vec<i64>>,
    pub(super) journal: HashMap<Place, Vec<i64>>,
    pub(super) rows: HashMap<(Thing, Place), Vec<FoundRow>>,
    /// Lines by the order's creating transaction.
    pub(super) lines: HashMap<Place, i64>,
    pub(super) audits: HashMap<Place, i64>,
    pub(super) orphan_lines: i64,
    /// Balance and version.
    pub(super) accounts: HashMap<i64, Vec<(i64, i64)>>,
    pub(super) sessions: HashMap<i64, Vec<FoundSession>>,
}

impl Found {
    pub(super) async fn read(client: &Client, book: Book, layout: &Layout) -> Result<Found, OracleError> {
        let sessions = layout.sessions(book);
        let range = (i64::from(sessions.start), i64::from(sessions.end) - 1);
        let reader = Reader { client, schema: book.schema(), range };
        reader.command("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let found = reader.all(book).await;
        let ended = reader.command("ROLLBACK").await;
        let found = found?;
        ended.map(|()| found)
    }

    /// Whether the ledger has the transaction.
    pub(super) fn entered(&self, session: i64, seq: i64) -> bool {
        self.ledger.contains_key(&(session, seq))
    }
}

struct Reader<'a> {
    client: &'a Client,
    schema: &'static str,
    range: (i64, i64),
}

impl Reader<'_> {
    async fn all(&self, book: Book) -> Result<Found, OracleError> {
        let mut found = Found::default();
        for (table, entries) in [("ledger", &mut found.ledger), ("journal", &mut found.journal)] {
            self.each(table, "session, seq, entry_no", |[session, seq, entry_no]| {
                entries.entry((session, seq)).or_default().push(entry_no);
            })
            .await?;
        }
        for thing in book.things() {
            let columns = format!("session, seq, revision, touched, {}", thing.echo());
            self.each(thing.table(), &columns, |[session, seq, revision, touched, echo]| {
                let rows = found.rows.entry((*thing, (session, seq))).or_default();
                rows.push(FoundRow { revision, touched, echo });
            })
            .await?;
        }
        self.each("accounts", "id, balance, version", |[id, balance, version]| {
            found.accounts.entry(id).or_default().push((balance, version));
        })
        .await?;
        self.each("sessions", "session, last_seq, chain", |[session, last_seq, chain]| {
            found.sessions.entry(session).or_default().push(FoundSession { last_seq, chain });
        })
        .await?;
        if book == Book::Shop {
            self.order_parts(&mut found).await?;
        }
        Ok(found)
    }

    async fn order_parts(&self, found: &mut Found) -> Result<(), OracleError> {
        self.each("order_audit", "session, seq", |[session, seq]| {
            *found.audits.entry((session, seq)).or_default() += 1;
        })
        .await?;
        let joined = "orders JOIN shop.order_items ON order_id = id";
        self.each(joined, "session, seq", |[session, seq]| {
            *found.lines.entry((session, seq)).or_default() += 1;
        })
        .await?;
        let orphans = "SELECT count(*) FROM shop.order_items i \
                       WHERE NOT EXISTS (SELECT FROM shop.orders o WHERE o.id = i.order_id)";
        let row = self.client.query_one(orphans, &[]).await;
        found.orphan_lines = row.and_then(|row| row.try_get(0)).map_err(|e| self.failed("order_items", e))?;
        Ok(())
    }

    /// Streams the rows of this workload's sessions; every column is a bigint, NULL reads as -1.
    async fn each<const N: usize>(
        &self,
        table: &str,
        columns: &str,
        mut take: impl FnMut([i64; N]),
    ) -> Result<(), OracleError> {
        let text = format!(
            "SELECT {columns} FROM {}.{table} WHERE session BETWEEN $1::bigint AND $2::bigint",
            self.schema
        );
        let failed = |error| self.failed(table, error);
        let rows = self.client.query_raw(&text, [self.range.0, self.range.1]).await.map_err(failed)?;
        let mut rows = std::pin::pin!(rows);
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            take(numbers(&row).map_err(failed)?);
        }
        Ok(())
    }

    async fn command(&self, text: &str) -> Result<(), OracleError> {
        self.client.batch_execute(text).await.map_err(|error| self.failed("the snapshot", error))
    }

    fn failed(&self, table: &str, source: tokio_postgres::Error) -> OracleError {
        OracleError::Read { table: format!("{}.{table}", self.schema), source }
    }
}

fn numbers<const N: usize>(row: &Row) -> Result<[i64; N], tokio_postgres::Error> {
    let mut numbers = [0; N];
    for (index, number) in numbers.iter_mut().enumerate() {
        *number = row.try_get::<_, Option<i64>>(index)?.unwrap_or(-1);
    }
    Ok(numbers)
}
