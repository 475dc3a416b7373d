//! Owns putting the part of the schema that comes after the rows into green: keys before the copy, then indexes and
//! constraints in parallel, larger tables first, then foreign keys, then everything else in pg_dump's order. Refuses to
//! know when the rows are there: its callers do.
//!
//! Every entry is one transaction and can be repeated: what exists already is done.

mod crew;
mod waves;

use pgteal_postgres::{Purpose, Server, Session, SqlState};
use serde::{Deserialize, Serialize};

use self::waves::Wave;
use super::dump::{Dump, Script};
use super::entries::{Entry, Section};
use super::memory::{Author, forget, recall, remember};
use super::{CarryError, Result, schema, triggers};
use crate::progress::{Progress, Tick, Unit};

pub(super) const KEY: &str = "carry.indexes";

/// How far the indexes of one database are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Primary keys and replica identity indexes are there.
    Keys,
    /// Everything is there.
    All,
}

/// How far it is; none before the keys.
pub async fn stage(green: &Session) -> Result<Option<Stage>> {
    recall(green, KEY).await
}

/// What one call works with.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The dumps.
    pub dump: &'a Dump,
    /// Green.
    pub green: &'a Server,
    /// The database.
    pub database: &'a str,
    /// In whose name it is remembered.
    pub author: &'a Author,
    /// How many indexes are built at once, at least 1.
    pub jobs: usize,
}

/// Makes the keys that apply workers need from the first row on: primary keys, and unique indexes that are replica
/// identities. Without them every UPDATE and DELETE that arrives during the copy would stop the stream.
pub async fn carry_keys(site: &Site<'_>, progress: &Progress<'_>) -> Result<()> {
    carry(site, Stage::Keys, progress).await
}

/// Makes everything else. All tables must be copied and in step: a foreign key is checked against the rows that are there.
pub async fn carry_rest(site: &Site<'_>, progress: &Progress<'_>) -> Result<()> {
    carry(site, Stage::All, progress).await
}

async fn carry(site: &Site<'_>, upto: Stage, progress: &Progress<'_>) -> Result<()> {
    let mut session = site.green.connect(site.database, Purpose::long("indexes")).await?;
    let stage = stage(&session).await?;
    if stage >= Some(upto) {
        return Ok(());
    }
    let script = site.dump.script(site.database, Section::PostData).await?;
    session.batch("setting the session as pg_dump asks", &script.preamble).await?;
    let sizes = sizes(&session).await?;
    let plan = waves::plan(&script.entries, &sizes);
    let wanted: Vec<&Wave> = plan.iter().filter(|w| stage < Some(w.stage) && w.stage <= upto).collect();
    let total = wanted.iter().map(|w| w.entries.len() as u64).sum();
    let counter = Counter { done: std::sync::atomic::AtomicU64::new(0), total, progress };
    let mut deferred = Vec::new();
    for wave in wanted {
        if wave.parallel {
            deferred.extend(crew::build(site, &script, &wave.entries, &counter).await?);
        } else {
            // What had to wait needs views and functions, which only the last wave makes.
            let waiting = if wave.last { std::mem::take(&mut deferred) } else { Vec::new() };
            in_order(&mut session, site, &script, wave, waiting, &counter).await?;
        }
    }
    if let Some(&left) = deferred.first() {
        // Keys come alone: what waits there for something of the rest would never be made.
        schema::make(&session, &script.entries[left]).await?;
    }
    let tx = session.begin("remembering the indexes").await?;
    remember(&tx, site.author, KEY, &upto).await?;
    tx.commit("remembering the indexes").await?;
    Ok(())
}

/// Counts what is done, for all workers together.
struct Counter<'a> {
    done: std::sync::atomic::AtomicU64,
    total: u64,
    progress: &'a Progress<'a>,
}

impl Counter<'_> {
    fn tick(&self, entry: &Entry) {
        let done = 1 + self.done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("{} {}", entry.kind.to_lowercase(), entry.object());
        (self.progress)(Tick { name: &name, done, total: self.total, unit: Unit::Items });
    }
}

/// A wave that is made one by one as pg_dump orders it, with what earlier waves had to put off.
async fn in_order(
    session: &mut Session,
    site: &Site<'_>,
    script: &Script,
    wave: &Wave,
    waiting: Vec<usize>,
    counter: &Counter<'_>,
) -> Result<()> {
    let mut order = wave.entries.clone();
    order.extend(waiting);
    order.sort_unstable();
    for at in order {
        let entry = &script.entries[at];
        run(session, site, entry).await?;
        counter.tick(entry);
    }
    Ok(())
}

/// Runs one entry in a transaction of its own. Triggers that would fire on replicated rows are switched off in the same
/// transaction, so that none ever fires.
async fn run(session: &mut Session, site: &Site<'_>, entry: &Entry) -> Result<()> {
    let doing = format!("making {} {}", entry.kind.to_lowercase(), entry.object());
    let tx = session.begin(&doing).await?;
    match schema::make(&tx, entry).await {
        Ok(()) => {}
        Err(e) if already(&e) => {
            tx.rollback(&doing).await?;
            return Ok(());
        }
        Err(e) => return Err(e),
    }
    if matches!(entry.kind.as_str(), "TRIGGER" | "EVENT TRIGGER") {
        triggers::silence_in(&tx, site.author).await?;
    }
    tx.commit(&doing).await?;
    Ok(())
}

/// Whether an entry failed only because it is there already, from an earlier call that was cut off.
fn already(error: &CarryError) -> bool {
    let Some(error) = error.server_error() else { return false };
    // 42P16 is also said of other invalid table definitions; only a second primary key is meant.
    let second_key = matches!(error, pgteal_postgres::Error::Statement(s) if s.message.starts_with("multiple primary keys"));
    error.is(&SqlState::DUPLICATE_TABLE)
        || error.is(&SqlState::DUPLICATE_OBJECT)
        || error.is(&SqlState::INVALID_TABLE_DEFINITION) && second_key
}

/// Sizes of green's tables in bytes, by the name as pg_dump writes it.
async fn sizes(session: &Session) -> Result<std::collections::HashMap<String, i64>> {
    let sql = "select format('%I.%I', n.nspname, c.relname), pg_table_size(c.oid) from pg_class c
        join pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'm', 'p')
          and n.nspname not in ('pg_catalog', 'information_schema')";
    let rows = session.query("reading the sizes of tables", sql, &[]).await?;
    let mut sizes = std::collections::HashMap::with_capacity(rows.len());
    for row in rows {
        sizes.insert(row.get(0)?, row.get(1)?);
    }
    Ok(sizes)
}

/// Forgets how far it came; the objects go with the database.
pub async fn undo(green: &Session) -> Result<()> {
    forget(green, KEY).await
}
