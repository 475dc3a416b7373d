//! Extensions, installed and available. Knows no opinion about any of them.

use serde::Serialize;

use crate::error::Result;
use crate::session::Session;

/// An installed extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Extension {
    /// The name.
    pub name: String,
    /// The installed version.
    pub version: String,
    /// The schema of its objects.
    pub schema: String,
    /// Tables whose rows pg_dump treats as the user's configuration; CREATE EXTENSION fills them.
    pub config_tables: Vec<String>,
}

/// An extension that could be installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AvailableExtension {
    /// The name.
    pub name: String,
    /// The version CREATE EXTENSION takes.
    pub default_version: Option<String>,
    /// Every version that can be named.
    pub versions: Vec<String>,
}

/// Installed extensions, by name.
pub async fn installed(s: &Session) -> Result<Vec<Extension>> {
    let sql = "SELECT e.extname::text, e.extversion, n.nspname::text,
        coalesce((SELECT array_agg(x::regclass::text) FROM unnest(e.extconfig) x), '{}')
        FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace ORDER BY 1";
    let rows = s.query("listing extensions", sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(Extension {
                name: row.get(0)?,
                version: row.get(1)?,
                schema: row.get(2)?,
                config_tables: row.get(3)?,
            })
        })
        .collect()
}

/// Extensions that the server's files offer, by name.
pub async fn available(s: &Session) -> Result<Vec<AvailableExtension>> {
    let sql = "SELECT a.name::text, a.default_version,
        coalesce((SELECT array_agg(v.version) FROM pg_available_extension_versions v WHERE v.name = a.name), '{}')
        FROM pg_available_extensions a ORDER BY 1";
    let rows = s.query("listing available extensions", sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(AvailableExtension { name: row.get(0)?, default_version: row.get(1)?, versions: row.get(2)? })
        })
        .collect()
}
