//! Publications. Knows the one form this program makes, and how to recognise anybody else's.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::names;
use crate::quote::{ident, literal};
use crate::session::Session;

/// One publication (PostgreSQL docs, "pg_publication").
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Publication {
    /// The name.
    pub name: String,
    /// FOR ALL TABLES
    pub all_tables: bool,
    /// Whether insert, update, delete and truncate are all published.
    pub all_actions: bool,
    /// publish_via_partition_root
    pub via_root: bool,
    /// The deployment named by the comment.
    pub deployment: Option<String>,
}

/// The publications of the database, by name.
pub async fn list(s: &Session) -> Result<Vec<Publication>> {
    let sql = "SELECT pubname::text, puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot,
        obj_description(oid, 'pg_publication') FROM pg_publication ORDER BY 1";
    let rows = s.query("listing publications", sql, &[]).await?;
    rows.iter()
        .map(|row| {
            let comment: Option<String> = row.get(4)?;
            Ok(Publication {
                name: row.get(0)?,
                all_tables: row.get(1)?,
                all_actions: row.get(2)?,
                via_root: row.get(3)?,
                deployment: comment.as_deref().and_then(names::deployment_of_comment).map(str::to_owned),
            })
        })
        .collect()
}

/// One publication by name.
pub async fn find(s: &Session, name: &str) -> Result<Option<Publication>> {
    Ok(list(s).await?.into_iter().find(|p| p.name == name))
}

/// Creates a publication of all tables and all actions, leaf by leaf (`publish_via_partition_root` would silently lose a
/// TRUNCATE of one leaf). One that exists must be ours and of this form. It must come before the slot, and after the
/// replica identities: without identity, UPDATE and DELETE fail from this moment on.
pub async fn create(s: &Session, name: &str, deployment: &str) -> Result<()> {
    let doing = format!("creating publication {name}");
    if let Some(found) = find(s, name).await? {
        require_ours(s, &found, deployment)?;
        if !found.all_tables || !found.all_actions || found.via_root {
            return Err(s.unexpected(
                &doing,
                "it exists and does not publish all changes of all tables leaf by leaf",
            ));
        }
        return Ok(());
    }
    let quoted = ident(name);
    let comment = literal(&names::comment(deployment));
    let sql = format!(
        "CREATE PUBLICATION {quoted} FOR ALL TABLES
           WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = false);
         COMMENT ON PUBLICATION {quoted} IS {comment}"
    );
    s.batch(&doing, &sql).await
}

/// Drops a publication of ours if it exists.
pub async fn drop(s: &Session, name: &str, deployment: &str) -> Result<()> {
    let Some(found) = find(s, name).await? else { return Ok(()) };
    require_ours(s, &found, deployment)?;
    s.batch(&format!("dropping publication {name}"), &format!("DROP PUBLICATION IF EXISTS {}", ident(name)))
        .await
}

fn require_ours(s: &Session, found: &Publication, deployment: &str) -> Result<()> {
    if found.deployment.as_deref() == Some(deployment) {
        return Ok(());
    }
    Err(Error::Foreign {
        server: s.server().to_owned(),
        database: s.database().to_owned(),
        object: format!("publication {}", found.name),
        reason: match &found.deployment {
            Some(other) => format!("its comment names deployment {other}"),
            None => "it has no comment of ours".to_owned(),
        },
    })
}
