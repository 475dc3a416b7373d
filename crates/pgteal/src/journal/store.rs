//! The statements: what each promise of a journal is in SQL. One connection, one call at a time.
//! Refuses to open files and to know threads.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pgteal_saga::journal::check_batch;
use pgteal_saga::{
    DeploymentId, Durability, Epoch, Event, EventBody, JournalError, Lease, RunId, RunSummary, stored,
};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::fault;

/// The journal's file, open.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    connection: Connection,
    /// What `PRAGMA synchronous` is set to.
    set_to: Durability,
}

/// One batch to append.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) run: RunId,
    pub(super) epoch: Epoch,
    pub(super) expected_seq: u64,
    pub(super) events: Vec<Event>,
    pub(super) durability: Durability,
}

struct Stored {
    number: i64,
    deployment: DeploymentId,
    seq: u64,
    link: String,
}

impl Store {
    /// Over a connection that was opened with full synchronisation.
    pub(super) fn new(path: &Path, connection: Connection) -> Self {
        Self { path: path.to_owned(), connection, set_to: Durability::Sync }
    }

    pub(super) fn append(&mut self, batch: &Batch) -> Result<u64, JournalError> {
        let last = check_batch(&batch.run, batch.epoch, batch.expected_seq, &batch.events)?;
        self.synchronise(batch.durability).map_err(|error| self.fault(&error))?;
        let path = self.path.clone();
        let failed = |error: rusqlite::Error| fault::of(&path, &error);
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let known = find(&path, &transaction, &batch.run)?;
        let deployment = match (&known, &batch.events[0].body) {
            (Some(run), _) => run.deployment.clone(),
            (None, EventBody::RunCreated { plan }) => plan.deployment().clone(),
            (None, _) => return Err(unknown(&path, &batch.run)),
        };
        let current = epoch_of(&transaction, &deployment).map_err(failed)?;
        if current != batch.epoch {
            return Err(JournalError::StaleEpoch { deployment, given: batch.epoch, current });
        }
        let found = known.as_ref().map_or(0, |run| run.seq);
        if found != batch.expected_seq {
            let (run, expected) = (batch.run.clone(), batch.expected_seq);
            return Err(JournalError::Conflict { run, expected, found });
        }
        write(&transaction, batch, &deployment, known, last).map_err(|error| match error {
            Unwritten::Sqlite(error) => failed(error),
            Unwritten::Shape(what) => JournalError::Malformed { run: batch.run.clone(), what },
        })?;
        transaction.commit().map_err(failed)?;
        Ok(last)
    }

    pub(super) fn load(&self, run: &RunId) -> Result<Vec<Event>, JournalError> {
        let failed = |error: rusqlite::Error| self.fault(&error);
        // One transaction, so that a reader beside a writer sees the run and its events of the same moment.
        let transaction = self.connection.unchecked_transaction().map_err(failed)?;
        let stored = find(&self.path, &transaction, run)?.ok_or_else(|| unknown(&self.path, run))?;
        let mut statement = transaction
            .prepare_cached("SELECT line, link FROM event WHERE run = ?1 ORDER BY seq")
            .map_err(failed)?;
        let pair = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let lines: Vec<_> = statement
            .query_map([stored.number], pair)
            .and_then(Iterator::collect::<rusqlite::Result<_>>)
            .map_err(failed)?;
        let lines = lines.iter().map(|(line, link)| (line.as_str(), link.as_str()));
        stored::read_run(lines, stored.seq).map_err(|damage| self.corrupt(format!("run {run}, {damage}")))
    }

    pub(super) fn runs(&self) -> Result<Vec<RunSummary>, JournalError> {
        let failed = |error: rusqlite::Error| self.fault(&error);
        let mut statement = self
            .connection
            .prepare_cached("SELECT id, deployment, kind, created_us, seq FROM run ORDER BY number")
            .map_err(failed)?;
        type Listed = (String, String, String, i64, i64);
        let listed = |row: &Row<'_>| -> rusqlite::Result<Listed> {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        };
        let rows: Vec<Listed> = statement
            .query_map([], listed)
            .and_then(Iterator::collect::<rusqlite::Result<_>>)
            .map_err(failed)?;
        rows.into_iter()
            .map(|(run, deployment, kind, created_us, seq)| {
                Ok(RunSummary {
                    run: RunId::parse(&run).map_err(|error| self.corrupt(error.to_string()))?,
                    deployment: DeploymentId::parse(&deployment)
                        .map_err(|error| self.corrupt(error.to_string()))?,
                    kind,
                    created_at: self.time(created_us)?,
                    seq: u64::try_from(seq).map_err(|error| self.corrupt(error.to_string()))?,
                })
            })
            .collect()
    }

    pub(super) fn acquire(
        &mut self,
        deployment: &DeploymentId,
        holder: &str,
        at: Timestamp,
    ) -> Result<Lease, JournalError> {
        self.synchronise(Durability::Sync).map_err(|error| self.fault(&error))?;
        // Above those of every deployment, not only of this one: a proxy outlives deployments and refuses what is lower than
        // the highest that it has seen.
        let epoch: i64 = self
            .connection
            .query_row(
                "INSERT INTO deployment (id, epoch, holder, acquired_us)
                 SELECT ?1, coalesce(max(epoch), 0) + 1, ?2, ?3 FROM deployment WHERE true
                 ON CONFLICT (id) DO UPDATE SET epoch = excluded.epoch, holder = ?2, acquired_us = ?3
                 RETURNING epoch",
                params![deployment.as_str(), holder, at.as_microsecond()],
                |row| row.get(0),
            )
            .map_err(|error| self.fault(&error))?;
        let epoch = Epoch(u64::try_from(epoch).map_err(|error| self.corrupt(error.to_string()))?);
        let (deployment, holder) = (deployment.clone(), holder.to_owned());
        Ok(Lease { deployment, epoch, holder, acquired_at: at })
    }

    pub(super) fn lease(&self, deployment: &DeploymentId) -> Result<Option<Lease>, JournalError> {
        let row: Option<(i64, String, i64)> = self
            .connection
            .query_row(
                "SELECT epoch, holder, acquired_us FROM deployment WHERE id = ?1",
                [deployment.as_str()],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .optional()
            .map_err(|error| self.fault(&error))?;
        let Some((epoch, holder, acquired_us)) = row else { return Ok(None) };
        let epoch = Epoch(u64::try_from(epoch).map_err(|error| self.corrupt(error.to_string()))?);
        Ok(Some(Lease {
            deployment: deployment.clone(),
            epoch,
            holder,
            acquired_at: self.time(acquired_us)?,
        }))
    }

    /// Moves what is in the write-ahead log into the file. Readers may keep a part of it from moving; that is no error.
    pub(super) fn checkpoint(&self) -> Result<(), JournalError> {
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|error| self.fault(&error))
    }

    #[cfg(test)]
    pub(super) fn limit_pages(&self, more: i64) -> Result<(), JournalError> {
        let limit = |connection: &Connection| -> rusqlite::Result<()> {
            let now: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            connection.query_row(&format!("PRAGMA max_page_count = {}", now + more), [], |_| Ok(()))
        };
        limit(&self.connection).map_err(|error| self.fault(&error))
    }

    /// A commit in WAL mode reaches the operating system either way, and with that survives the process; only `FULL`
    /// waits for the disk, and then for everything before it too (<https://sqlite.org/pragma.html#pragma_synchronous>).
    fn synchronise(&mut self, durability: Durability) -> rusqlite::Result<()> {
        if self.set_to != durability {
            let mode = if durability == Durability::Sync { "FULL" } else { "NORMAL" };
            self.connection.execute_batch(&format!("PRAGMA synchronous = {mode}"))?;
            self.set_to = durability;
        }
        Ok(())
    }

    fn time(&self, micros: i64) -> Result<Timestamp, JournalError> {
        Timestamp::from_microsecond(micros).map_err(|error| self.corrupt(error.to_string()))
    }

    fn fault(&self, error: &rusqlite::Error) -> JournalError {
        fault::of(&self.path, error)
    }

    fn corrupt(&self, what: String) -> JournalError {
        JournalError::Corrupt { place: self.path.display().to_string(), what }
    }
}

enum Unwritten {
    Sqlite(rusqlite::Error),
    Shape(String),
}

impl From<rusqlite::Error> for Unwritten {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn write(
    transaction: &Transaction<'_>,
    batch: &Batch,
    deployment: &DeploymentId,
    known: Option<Stored>,
    last: u64,
) -> Result<(), Unwritten> {
    let (created_us, last) = (batch.events[0].at.as_microsecond(), signed(last)?);
    let (number, mut link) = match (known, &batch.events[0].body) {
        (Some(run), _) => (run.number, run.link),
        (None, EventBody::RunCreated { plan }) => {
            let row = params![batch.run.as_str(), deployment.as_str(), plan.kind(), created_us, last];
            let sql = "INSERT INTO run (id, deployment, kind, created_us, seq, link) VALUES (?1, ?2, ?3, ?4, ?5, '')";
            transaction.prepare_cached(sql)?.execute(row)?;
            (transaction.last_insert_rowid(), String::new())
        }
        (None, _) => return Err(Unwritten::Shape("the run was not created".into())),
    };
    let mut insert =
        transaction.prepare_cached("INSERT INTO event (run, seq, line, link) VALUES (?1, ?2, ?3, ?4)")?;
    for event in &batch.events {
        let line = stored::encode(event).map_err(|error| Unwritten::Shape(error.to_string()))?;
        link = stored::link(&link, &line);
        insert.execute(params![number, signed(event.seq)?, line, link])?;
    }
    let mut update = transaction.prepare_cached("UPDATE run SET seq = ?2, link = ?3 WHERE number = ?1")?;
    update.execute(params![number, last, link])?;
    Ok(())
}

fn signed(number: u64) -> Result<i64, Unwritten> {
    i64::try_from(number).map_err(|error| Unwritten::Shape(error.to_string()))
}

fn find(path: &Path, connection: &Connection, run: &RunId) -> Result<Option<Stored>, JournalError> {
    let corrupt = |what: String| JournalError::Corrupt { place: path.display().to_string(), what };
    let row: Option<(i64, String, i64, String)> = connection
        .prepare_cached("SELECT number, deployment, seq, link FROM run WHERE id = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([run.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
                .optional()
        })
        .map_err(|error| fault::of(path, &error))?;
    let Some((number, deployment, seq, link)) = row else { return Ok(None) };
    let deployment = DeploymentId::parse(&deployment).map_err(|error| corrupt(error.to_string()))?;
    let seq = u64::try_from(seq).map_err(|error| corrupt(error.to_string()))?;
    Ok(Some(Stored { number, deployment, seq, link }))
}

fn epoch_of(connection: &Connection, deployment: &DeploymentId) -> rusqlite::Result<Epoch> {
    let epoch: Option<i64> = connection
        .prepare_cached("SELECT epoch FROM deployment WHERE id = ?1")?
        .query_row([deployment.as_str()], |row| row.get(0))
        .optional()?;
    Ok(Epoch(epoch.and_then(|epoch| u64::try_from(epoch).ok()).unwrap_or(0)))
}

fn unknown(path: &Path, run: &RunId) -> JournalError {
    JournalError::UnknownRun { place: path.display().to_string(), run: run.clone() }
}
