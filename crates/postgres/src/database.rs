//! The databases of a cluster: what must be known to make an equal one elsewhere. Knows nothing of their contents.

use serde::Serialize;

use crate::error::Result;
use crate::quote::{ident, literal};
use crate::session::Session;

/// One database (PostgreSQL docs, "pg_database").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Database {
    /// Its OID; slot names contain it.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// The role that owns it.
    pub owner: String,
    /// The encoding's name, e.g. `UTF8`.
    pub encoding: String,
    /// LC_COLLATE.
    pub collate: String,
    /// LC_CTYPE.
    pub ctype: String,
    /// `c` libc, `i` ICU, `b` builtin (17 and later).
    pub locale_provider: String,
    /// The provider's locale, for ICU and builtin.
    pub locale: Option<String>,
    /// ICU rules (16 and later).
    pub icu_rules: Option<String>,
    /// The default tablespace.
    pub tablespace: String,
    /// CONNECTION LIMIT, -1 for none, -2 for a database whose drop was interrupted.
    pub connection_limit: i32,
    /// Whether connections are allowed.
    pub allow_connections: bool,
    /// Whether it is a template.
    pub is_template: bool,
    /// The comment.
    pub comment: Option<String>,
    /// Privileges as `pg_database.datacl` prints them; `None` means the default.
    pub acl: Option<Vec<String>>,
    /// Size on disk in bytes; 0 if it may not be connected to.
    pub size_bytes: i64,
}

/// Every database, by name.
pub async fn list_all(s: &Session) -> Result<Vec<Database>> {
    // Columns that not every version has are read from the row as JSON.
    let sql = "SELECT d.oid, d.datname::text, pg_get_userbyid(d.datdba)::text, pg_encoding_to_char(d.encoding)::text,
        d.datcollate::text, d.datctype::text, coalesce(j->>'datlocprovider', 'c'),
        coalesce(j->>'datlocale', j->>'daticulocale'), j->>'daticurules', t.spcname::text,
        d.datconnlimit, d.datallowconn, d.datistemplate, shobj_description(d.oid, 'pg_database'),
        d.datacl::text[], CASE WHEN d.datallowconn THEN pg_database_size(d.oid) ELSE 0 END
        FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace, to_jsonb(d) j ORDER BY d.datname";
    let rows = s.query("listing databases", sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Database {
                oid: row.get(0)?,
                name: row.get(1)?,
                owner: row.get(2)?,
                encoding: row.get(3)?,
                collate: row.get(4)?,
                ctype: row.get(5)?,
                locale_provider: row.get(6)?,
                locale: row.get(7)?,
                icu_rules: row.get(8)?,
                tablespace: row.get(9)?,
                connection_limit: row.get(10)?,
                allow_connections: row.get(11)?,
                is_template: row.get(12)?,
                comment: row.get(13)?,
                acl: row.get(14)?,
                size_bytes: row.get(15)?,
            })
        })
        .collect()
}

/// The databases that hold user data: not templates, open to connections, not half dropped.
pub async fn list(s: &Session) -> Result<Vec<Database>> {
    let mut all = list_all(s).await?;
    all.retain(|d| d.allow_connections && !d.is_template && d.connection_limit != -2);
    Ok(all)
}

/// The OID of the session's own database.
pub async fn current_oid(s: &Session) -> Result<u32> {
    let sql = "SELECT oid FROM pg_database WHERE datname = current_database()";
    s.query_one("reading the database's OID", sql, &[]).await?.get(0)
}

/// Creates an empty database with the encoding, locale and owner of `like`, from template0. Nothing is done if a
/// database of the name exists; whether it is equal is the caller's question.
pub async fn create(s: &Session, like: &Database) -> Result<()> {
    let doing = format!("creating database {}", like.name);
    let exists = "SELECT 1 FROM pg_database WHERE datname = $1";
    if s.query_opt(&doing, exists, &[&like.name]).await?.is_some() {
        return Ok(());
    }
    let mut sql = format!(
        "CREATE DATABASE {} TEMPLATE template0 OWNER {} ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        ident(&like.name),
        ident(&like.owner),
        literal(&like.encoding),
        literal(&like.collate),
        literal(&like.ctype)
    );
    let locale = like.locale.as_deref().map(literal);
    match (like.locale_provider.as_str(), locale) {
        ("i", Some(locale)) => sql.push_str(&format!(" LOCALE_PROVIDER icu ICU_LOCALE {locale}")),
        ("b", Some(locale)) => sql.push_str(&format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {locale}")),
        _ if s.version().major >= 15 => sql.push_str(" LOCALE_PROVIDER libc"),
        _ => {}
    }
    if let Some(rules) = &like.icu_rules {
        sql.push_str(&format!(" ICU_RULES {}", literal(rules)));
    }
    s.batch(&doing, &sql).await
}

/// Drops a database if it exists and ends its sessions.
pub async fn drop(s: &Session, name: &str) -> Result<()> {
    s.batch(
        &format!("dropping database {name}"),
        &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(name)),
    )
    .await
}
