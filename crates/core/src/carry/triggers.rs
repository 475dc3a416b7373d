//! Owns keeping triggers quiet on the side that is not active: those that would fire on replicated rows (ENABLE ALWAYS,
//! REPLICA), and event triggers, which would fire on our own DDL there. Refuses to know which side that is.

use pgteal_postgres::Session;
use pgteal_postgres::quote::{ident, qualified};
use serde::{Deserialize, Serialize};

use super::Result;
use super::memory::{Author, forget, recall, remember};

pub(super) const KEY: &str = "carry.triggers";

/// One trigger that was switched off, and how it was on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Silenced {
    /// Schema and table; none for an event trigger.
    table: Option<(String, String)>,
    name: String,
    /// `O`, `A` or `R` (PostgreSQL docs, "pg_trigger", tgenabled).
    enabled: String,
}

impl Silenced {
    fn alter(&self, how: &str) -> String {
        let name = ident(&self.name);
        match &self.table {
            Some((schema, table)) => {
                format!("ALTER TABLE ONLY {} {how} TRIGGER {name};", qualified(schema, table))
            }
            None => format!("ALTER EVENT TRIGGER {name} {how};"),
        }
    }

    fn restore(&self) -> String {
        self.alter(match self.enabled.as_str() {
            "A" => "ENABLE ALWAYS",
            "R" => "ENABLE REPLICA",
            _ => "ENABLE",
        })
    }
}

/// What is on now and should not be. Up to 14 the clones of a trigger on partitions count as internal.
async fn noisy(s: &Session) -> Result<Vec<Silenced>> {
    let sql = "select n.nspname::text, c.relname::text, t.tgname::text, t.tgenabled::text
        from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
        where t.tgenabled in ('A', 'R') and (not t.tgisinternal or t.tgparentid <> 0) and n.nspname not in ('pg_catalog', 'pgteal')
          and t.tgname !~ '^~pgteal_'
        union all
        select null, null, evtname::text, evtenabled::text from pg_event_trigger
        where evtenabled <> 'D' and evtname !~ '^pgteal_' order by 1, 2, 3";
    let rows = s.query("looking for triggers that would fire here", sql, &[]).await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let table = row.get::<Option<String>>(0)?.zip(row.get::<Option<String>>(1)?);
        all.push(Silenced { table, name: row.get(2)?, enabled: row.get(3)? });
    }
    Ok(all)
}

/// How many triggers are on that [`silence`] would switch off.
pub async fn to_silence(s: &Session) -> Result<usize> {
    Ok(noisy(s).await?.len())
}

/// How many triggers [`silence`] has switched off and [`restore`] has not put back.
pub async fn silenced(s: &Session) -> Result<usize> {
    Ok(recall::<Vec<Silenced>>(s, KEY).await?.unwrap_or_default().len())
}

/// The triggers on tables among them: schema, table, name, and how each was on.
pub(crate) async fn remembered(s: &Session) -> Result<Vec<(String, String, String, String)>> {
    let all = recall::<Vec<Silenced>>(s, KEY).await?.unwrap_or_default().into_iter();
    Ok(all.filter_map(|t| t.table.map(|(schema, table)| (schema, table, t.name, t.enabled))).collect())
}

/// Switches off what would fire, and remembers it, in one transaction. Returns how many it switched off now.
pub async fn silence(s: &mut Session, author: &Author) -> Result<usize> {
    if to_silence(s).await? == 0 {
        return Ok(0);
    }
    let tx = s.begin("silencing triggers").await?;
    let count = silence_in(&tx, author).await?;
    tx.commit("silencing triggers").await?;
    Ok(count)
}

/// As [`silence`], in the transaction that is open on the session.
pub(super) async fn silence_in(s: &Session, author: &Author) -> Result<usize> {
    let found = noisy(s).await?;
    if found.is_empty() {
        return Ok(0);
    }
    let mut all: Vec<Silenced> = recall(s, KEY).await?.unwrap_or_default();
    all.retain(|known| !found.iter().any(|f| (&f.table, &f.name) == (&known.table, &known.name)));
    all.extend(found.iter().cloned());
    let statements: Vec<String> = found.iter().map(|f| f.alter("DISABLE")).collect();
    s.batch("silencing triggers", &statements.join("\n")).await?;
    remember(s, author, KEY, &all).await?;
    Ok(found.len())
}

/// Switches on again what [`silence`] switched off. One short query when there is nothing.
pub async fn restore(s: &mut Session) -> Result<usize> {
    let all: Vec<Silenced> = recall(s, KEY).await?.unwrap_or_default();
    if all.is_empty() {
        return Ok(0);
    }
    let tx = s.begin("restoring triggers").await?;
    let statements: Vec<String> = all.iter().map(Silenced::restore).collect();
    tx.batch("restoring triggers", &statements.join("\n")).await?;
    forget(&tx, KEY).await?;
    tx.commit("restoring triggers").await?;
    Ok(all.len())
}
