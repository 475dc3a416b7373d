//! Owns putting the part of the schema that comes before the rows into green: types, functions, tables, views,
//! privileges. Refuses to know indexes and triggers.
//!
//! Entries are run in pg_dump's order, a few hundred to a transaction (one for all would need a lock for every table at
//! once), and each transaction also remembers how far it came: a run that is cut off goes on exactly there.

use pgteal_postgres::quote::ident;
use pgteal_postgres::{Purpose, Server, Session, schema};
use serde::{Deserialize, Serialize};

use super::dump::{Dump, Script};
use super::entries::{Entry, Section};
use super::memory::{Author, forget, recall, remember};
use super::{CarryError, Result};
use crate::progress::{Progress, Tick, Unit};

const KEY: &str = "carry.schema";
const CHUNK: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    fingerprint: String,
    done: usize,
    total: usize,
}

/// Whether the schema of the session's database is there as a whole.
pub async fn is_carried(green: &Session) -> Result<bool> {
    let position: Option<Position> = recall(green, KEY).await?;
    Ok(position.is_some_and(|p| p.done == p.total))
}

/// Whether anything of the schema is there.
pub async fn is_begun(green: &Session) -> Result<bool> {
    Ok(recall::<Position>(green, KEY).await?.is_some())
}

/// Puts the schema of `database` into green. The dump must be taken. Makes our own schema there, to remember in.
pub async fn carry(
    dump: &Dump,
    green: &Server,
    database: &str,
    author: &Author,
    progress: &Progress<'_>,
) -> Result<()> {
    let script = dump.script(database, Section::PreData).await?;
    let mut session = green.connect(database, Purpose::long("schema")).await?;
    schema::ensure(&session, author.deployment.as_str()).await?;
    let position = recall(&session, KEY).await?.unwrap_or_else(|| Position {
        fingerprint: script.fingerprint.clone(),
        done: 0,
        total: script.entries.len(),
    });
    if position.fingerprint != script.fingerprint {
        let message = format!("database {database} on green was begun from another dump of the schema");
        return Err(CarryError::Unreadable(message));
    }
    put(&mut session, &script, position, author, progress).await
}

async fn put(
    session: &mut Session,
    script: &Script,
    mut position: Position,
    author: &Author,
    progress: &Progress<'_>,
) -> Result<()> {
    let database = session.database().to_owned();
    session.batch("setting the session as pg_dump asks", &script.preamble).await?;
    let total = script.entries.len();
    loop {
        let chunk = &script.entries[position.done.min(total)..(position.done + CHUNK).min(total)];
        let tx = session.begin("making the schema").await?;
        for entry in chunk {
            make(&tx, entry).await?;
        }
        position.done += chunk.len();
        if position.done == total {
            empty_extension_tables(&tx).await?;
        }
        remember(&tx, author, KEY, &position).await?;
        tx.commit("making the schema").await?;
        let (done, total) = (position.done as u64, total as u64);
        progress(Tick { name: &database, done, total, unit: Unit::Items });
        if done == total {
            return Ok(());
        }
    }
}

/// Runs one entry; an error names the object.
pub(super) async fn make(session: &Session, entry: &Entry) -> Result<()> {
    let doing = format!("making {} {}", entry.kind.to_lowercase(), entry.object());
    session.batch(&doing, &entry.sql).await.map_err(|source| CarryError::Entry {
        database: session.database().to_owned(),
        kind: entry.kind.clone(),
        object: entry.object(),
        source: Box::new(source),
    })
}

/// CREATE EXTENSION fills tables of its own, and blue's rows of the same tables come with the copy: without this, twice.
async fn empty_extension_tables(session: &Session) -> Result<()> {
    let sql = "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
        join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
        where c.relkind = 'r' and c.relpersistence = 'p' and n.nspname not in ('pg_catalog', 'information_schema')
          and pg_relation_size(c.oid) > 0";
    let rows = session.query("looking for rows that extensions brought", sql, &[]).await?;
    let mut tables = Vec::with_capacity(rows.len());
    for row in rows {
        tables.push(row.get::<String>(0)?);
    }
    if !tables.is_empty() {
        let sql = format!("TRUNCATE ONLY {}", tables.join(", "));
        session.batch("emptying tables that extensions filled", &sql).await?;
    }
    Ok(())
}

/// Empties a database that was there before us (one that we made is dropped as a whole): every schema, extension and
/// event trigger but ours goes, and `public` is as in a new database.
pub async fn undo(green: &mut Session) -> Result<()> {
    if !is_begun(green).await? {
        return Ok(());
    }
    let sql = "select format('DROP %s IF EXISTS %I CASCADE', kind, name) from (
          select 0 as at, 'EVENT TRIGGER' as kind, evtname::text as name from pg_event_trigger where evtname !~ '^pgteal_'
          union all select 1, 'EXTENSION', extname from pg_extension where extname <> 'plpgsql'
          union all select 2, 'SCHEMA', nspname from pg_namespace where nspname !~ '^pg_'
            and nspname not in ('information_schema', 'pgteal')
          union all select 3, 'SERVER', srvname from pg_foreign_server
          union all select 4, 'FOREIGN DATA WRAPPER', fdwname from pg_foreign_data_wrapper
          union all select 5, 'LANGUAGE', lanname from pg_language where lanname <> 'plpgsql' and oid >= 16384) x
        order by at, name";
    let rows = green.query("listing what was carried", sql, &[]).await?;
    let mut statements = Vec::with_capacity(rows.len() + 2);
    for row in rows {
        statements.push(row.get::<String>(0)?);
    }
    statements.push(public(green));
    let tx = green.begin("emptying the database").await?;
    tx.batch("emptying the database", &statements.join(";\n")).await?;
    forget(&tx, KEY).await?;
    for key in [super::indexes::KEY, super::triggers::KEY] {
        forget(&tx, key).await?;
    }
    tx.commit("emptying the database").await?;
    Ok(())
}

/// Schema `public` as `initdb` makes it; since 15 it belongs to the database's owner and only that one may create in it.
fn public(green: &Session) -> String {
    let (owner, privilege) = match green.version().major {
        15.. => (ident("pg_database_owner"), "USAGE"),
        _ => ("CURRENT_USER".to_owned(), "ALL"),
    };
    format!(
        "CREATE SCHEMA public AUTHORIZATION {owner}; COMMENT ON SCHEMA public IS 'standard public schema';
         GRANT {privilege} ON SCHEMA public TO PUBLIC"
    )
}
