//! Owns what a new cluster must have in common with blue, read from blue in one session. Refuses to know how a cluster
//! is made from it. It holds password verifiers and a private key: it is never printed.

use std::fmt;

use pgteal_postgres::{Purpose, Server, Session, Version};
use serde_json::{Map, Value};

use super::hba::{self, AccessFile};
use super::settings::BlueSetting;
use super::tls::{self, TlsFiles};
use crate::providers::{LeftOut, ProviderError, Result};

/// What blue looks like.
pub(super) struct Image {
    pub(super) version: Version,
    pub(super) bootstrap: String,
    pub(super) bootstrap_verifier: Option<String>,
    pub(super) tool_role: String,
    pub(super) tool_verifier: Option<String>,
    pub(super) encoding: String,
    /// `template1`'s row of `pg_database`; its columns differ by version.
    pub(super) locale: Map<String, Value>,
    pub(super) checksums: bool,
    pub(super) wal_segment_bytes: u64,
    pub(super) settings: Vec<BlueSetting>,
    pub(super) hba: AccessFile,
    pub(super) ident: String,
    pub(super) tls: Option<TlsFiles>,
    pub(super) left_out: Vec<LeftOut>,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("version", &self.version)
            .field("encoding", &self.encoding)
            .finish_non_exhaustive()
    }
}

/// Reads blue. Its files are read by the server, so blue may be on another machine.
pub(super) async fn read(blue: &Server) -> Result<Image> {
    let session = blue.connect(blue.conninfo().database(), Purpose::control("provider")).await?;
    let doing = "reading what the new cluster must have in common";
    let cluster = session
        .query_one(
            doing,
            "select b.rolname::text, b.rolpassword, session_user::text,
               (select rolpassword from pg_authid where rolname = session_user),
               (select pg_encoding_to_char(encoding)::text from pg_database where datname = 'template1'),
               (select (to_jsonb(d) - 'datacl')::text from pg_database d where datname = 'template1'),
               current_setting('data_checksums') = 'on',
               (select setting::bigint from pg_settings where name = 'wal_segment_size')
             from pg_authid b where b.oid = 10",
            &[],
        )
        .await?;
    let locale: String = cluster.get(5)?;
    let locale = serde_json::from_str(&locale).map_err(|e| ProviderError::Configuration(e.to_string()))?;
    let mut left_out = Vec::new();
    let tls = tls::read(&session, &mut left_out).await?;
    Ok(Image {
        version: session.version(),
        bootstrap: cluster.get(0)?,
        bootstrap_verifier: cluster.get(1)?,
        tool_role: cluster.get(2)?,
        tool_verifier: cluster.get(3)?,
        encoding: cluster.get(4)?,
        locale,
        checksums: cluster.get(6)?,
        wal_segment_bytes: u64::try_from(cluster.get::<i64>(7)?).unwrap_or(16 << 20),
        settings: settings(&session).await?,
        hba: hba::read(&session, &mut left_out).await?,
        ident: hba::read_ident(&session, &mut left_out).await?,
        tls,
        left_out,
    })
}

/// Settings that the files or the command line give, with the value in force in the setting's own unit. A setting that
/// our role or database overrides hides what the file says, so there the file's text is taken.
async fn settings(session: &Session) -> Result<Vec<BlueSetting>> {
    let sql = "with filed as (select distinct on (lower(name)) lower(name) as name, setting
          from pg_file_settings where error is null or not applied order by lower(name), seqno desc),
        given as (select name, setting from filed union
          select name, null from pg_settings where source in ('command line', 'environment variable')
            and lower(name) not in (select name from filed))
      select coalesce(s.name, g.name), case when s.source in ('configuration file', 'command line', 'environment variable')
          then s.setting else g.setting end, coalesce(s.unit, ''), coalesce(s.source, '')
      from given g left join pg_settings s on lower(s.name) = g.name
      where coalesce(s.setting, g.setting) is not null order by 1";
    let rows = session.query("reading the settings in force", sql, &[]).await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let value: Option<String> = row.get(1)?;
        let source: String = row.get(3)?;
        all.push(BlueSetting {
            name: row.get(0)?,
            value: value.unwrap_or_default(),
            unit: row.get(2)?,
            in_base_unit: matches!(
                source.as_str(),
                "configuration file" | "command line" | "environment variable"
            ),
        });
    }
    Ok(all)
}
