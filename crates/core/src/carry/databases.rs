//! Owns carrying databases as wholes: encoding, locale, owner, privileges, comment, connection limit, settings. Refuses
//! to know what is in them.
//!
//! `CREATE DATABASE` cannot be in a transaction: what is about to be made is remembered first, on green, in the database
//! that holds our state for the cluster. A database found there that is not remembered is somebody else's.

mod acl;

use std::collections::BTreeSet;

use pgteal_postgres::database::{self, Database};
use pgteal_postgres::quote::{ident, literal};
use pgteal_postgres::role::{self, StoredSetting};
use pgteal_postgres::{Session, schema};
use serde::{Deserialize, Serialize};

use super::memory::{Author, forget, recall, remember};
use super::{CarryError, Result};

const KEY: &str = "carry.databases";

/// Databases that every cluster has from the start; they are filled, never made or dropped.
const PRESENT: [&str; 1] = ["postgres"];

/// Settings that the tool itself changes on a fenced server, so that they are neither compared nor carried.
const FENCED: &str = "default_transaction_read_only";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Undo {
    created: BTreeSet<String>,
    /// Statements that put back what was changed in databases that were there.
    restore: Vec<String>,
    /// Settings of databases that were there, before the first change.
    settings: Vec<(String, Vec<Owned>)>,
}

/// A stored setting: role, name, value.
type Owned = (Option<String>, String, String);

struct Inventory {
    databases: Vec<Database>,
    settings: Vec<StoredSetting>,
}

impl Inventory {
    async fn of(s: &Session) -> Result<Self> {
        Ok(Self { databases: database::list_all(s).await?, settings: role::stored_settings(s).await? })
    }

    fn find(&self, name: &str) -> Option<&Database> {
        self.databases.iter().find(|d| d.name == name)
    }

    fn settings_of(&self, name: &str, except: &str) -> Vec<Owned> {
        let mine = self.settings.iter().filter(|s| s.database.as_deref() == Some(name) && s.name != FENCED);
        let mine = mine.filter(|s| s.role.as_deref() != Some(except));
        let mut mine: Vec<_> = mine.map(|s| (s.role.clone(), s.name.clone(), s.value.clone())).collect();
        mine.sort();
        mine
    }
}

async fn session_user(s: &Session) -> Result<String> {
    Ok(s.query_one("asking who we are", "SELECT session_user::text", &[]).await?.get(0)?)
}

/// What green's databases lack, as phrases; empty when they are carried.
pub async fn differences(blue: &Session, green: &Session, names: &[String]) -> Result<Vec<String>> {
    let (there, here) = (Inventory::of(blue).await?, Inventory::of(green).await?);
    let tool = session_user(green).await?;
    let mut differences = Vec::new();
    for name in names {
        let Some(wanted) = there.find(name) else {
            differences.push(format!("database {name} is no longer on the other side"));
            continue;
        };
        let Some(found) = here.find(name) else {
            differences.push(format!("database {name} is missing"));
            continue;
        };
        differences
            .extend(immutable(wanted, found).map(|what| format!("database {name} has another {what}")));
        if !same_properties(wanted, found) {
            differences.push(format!("owner, privileges, limit or comment of database {name} differ"));
        }
        if there.settings_of(name, &tool) != here.settings_of(name, &tool) {
            differences.push(format!("settings of database {name} differ"));
        }
    }
    Ok(differences)
}

/// What cannot be changed once a database is there.
fn immutable<'a>(a: &Database, b: &Database) -> Option<&'a str> {
    let locale = |d: &Database| (d.locale_provider.clone(), d.locale.clone(), d.icu_rules.clone());
    if a.encoding != b.encoding {
        Some("encoding")
    } else if (&a.collate, &a.ctype) != (&b.collate, &b.ctype) || locale(a) != locale(b) {
        Some("locale")
    } else {
        None
    }
}

fn same_properties(a: &Database, b: &Database) -> bool {
    (&a.owner, a.connection_limit, &a.comment) == (&b.owner, b.connection_limit, &b.comment)
        && acl::privileges(a) == acl::privileges(b)
}

/// Makes the databases of `names` on green like those on blue. `green` must be in the database that holds our state for
/// the cluster. Idempotent; goes on where an earlier call was cut off.
pub async fn carry(blue: &Session, green: &mut Session, names: &[String], author: &Author) -> Result<()> {
    schema::ensure(green, author.deployment.as_str()).await?;
    let (there, here) = (Inventory::of(blue).await?, Inventory::of(green).await?);
    let tool = session_user(green).await?;
    let mut undo: Undo = recall(green, KEY).await?.unwrap_or_default();
    for name in names {
        let Some(wanted) = there.find(name) else { continue };
        admit(wanted, here.find(name), &undo)?;
        if here.find(name).is_none() {
            undo.created.insert(name.clone());
        } else if !undo.created.contains(name) && !undo.settings.iter().any(|(n, _)| n == name) {
            let found = here.find(name).unwrap_or(wanted);
            undo.restore.extend(dress(found, wanted));
            undo.settings.push((name.clone(), here.settings_of(name, &tool)));
        }
    }
    remember(green, author, KEY, &undo).await?;
    for wanted in names.iter().filter_map(|name| there.find(name)) {
        database::create(green, wanted).await?;
        let settings = there.settings_of(&wanted.name, &tool);
        let fresh = Database { acl: None, ..wanted.clone() };
        let found = here.find(&wanted.name).unwrap_or(&fresh);
        let doing = format!("dressing database {}", wanted.name);
        let tx = green.begin(&doing).await?;
        tx.batch(&doing, &dress(wanted, found).join("\n")).await?;
        replace_settings(&tx, &wanted.name, &settings, &here.settings_of(&wanted.name, &tool)).await?;
        tx.commit(&doing).await?;
    }
    Ok(())
}

fn admit(wanted: &Database, found: Option<&Database>, undo: &Undo) -> Result<()> {
    if !wanted.tablespace.starts_with("pg_") {
        let object = format!("database {}", wanted.name);
        let reason = format!("it lies in tablespace {}, and tablespaces are not carried", wanted.tablespace);
        return Err(CarryError::Unsupported { object, reason });
    }
    let Some(found) = found else { return Ok(()) };
    if !PRESENT.contains(&wanted.name.as_str()) && !undo.created.contains(&wanted.name) {
        let reason = "it was there before us".to_owned();
        return Err(CarryError::Foreign { object: format!("database {}", wanted.name), reason });
    }
    match immutable(wanted, found) {
        None => Ok(()),
        Some(what) => Err(CarryError::Unsupported {
            object: format!("database {}", wanted.name),
            reason: format!("green's has another {what}, which cannot be changed"),
        }),
    }
}

/// Owner, limit, comment and privileges.
fn dress(wanted: &Database, found: &Database) -> Vec<String> {
    let name = ident(&wanted.name);
    let comment = wanted.comment.as_deref().map_or_else(|| "NULL".to_owned(), literal);
    let mut statements = vec![
        format!("ALTER DATABASE {name} OWNER TO {};", ident(&wanted.owner)),
        format!("ALTER DATABASE {name} CONNECTION LIMIT {};", wanted.connection_limit.max(-1)),
        format!("COMMENT ON DATABASE {name} IS {comment};"),
    ];
    statements.extend(acl::statements(wanted, found));
    statements
}

async fn replace_settings(s: &Session, database: &str, wanted: &[Owned], found: &[Owned]) -> Result<()> {
    let setting = |(role, name, value): &Owned| StoredSetting {
        role: role.clone(),
        database: Some(database.to_owned()),
        name: name.clone(),
        value: value.clone(),
    };
    for gone in found.iter().filter(|f| !wanted.iter().any(|w| (&w.0, &w.1) == (&f.0, &f.1))) {
        role::reset_setting(s, &setting(gone)).await?;
    }
    for new in wanted.iter().filter(|w| !found.contains(w)) {
        role::store_setting(s, &setting(new)).await?;
    }
    Ok(())
}

/// Drops the databases that [`carry`] made, and puts back what it changed in those that were there.
pub async fn undo(green: &mut Session) -> Result<()> {
    let Some(undo): Option<Undo> = recall(green, KEY).await? else { return Ok(()) };
    for name in &undo.created {
        database::drop(green, name).await?;
    }
    let here = Inventory::of(green).await?;
    let tool = session_user(green).await?;
    let tx = green.begin("putting databases back").await?;
    tx.batch("putting databases back", &undo.restore.join("\n")).await?;
    for (name, settings) in &undo.settings {
        replace_settings(&tx, name, settings, &here.settings_of(name, &tool)).await?;
    }
    forget(&tx, KEY).await?;
    tx.commit("putting databases back").await?;
    Ok(())
}

/// Whether [`carry`] has been at work here and [`undo`] has not.
pub async fn is_carried(green: &Session) -> Result<bool> {
    Ok(recall::<Undo>(green, KEY).await?.is_some())
}

/// The databases that [`carry`] made.
pub async fn created(green: &Session) -> Result<Vec<String>> {
    let undo: Option<Undo> = recall(green, KEY).await?;
    Ok(undo.map(|undo| undo.created.into_iter().collect()).unwrap_or_default())
}
