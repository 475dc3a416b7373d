//! Owns reading blue's schema by green's `pg_dump`: one consistent dump per database, kept until the deployment is over.
//! Refuses to know how its entries are put into green.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgteal_postgres::Server;

use super::entries::{Entry, Section, split};
use super::{CarryError, Result};
use crate::providers::{Programs, ProviderError, run_program};

/// Reading a schema of very many objects takes minutes, not hours.
const LIMIT: Duration = Duration::from_secs(3600);

/// The dumps of a deployment.
#[derive(Debug, Clone)]
pub struct Dump {
    programs: Programs,
    directory: PathBuf,
}

/// A database's entries of one section, and what the session must be set to.
#[derive(Debug, Clone)]
pub(super) struct Script {
    pub(super) preamble: String,
    pub(super) entries: Vec<Entry>,
    /// Tells one dump from another.
    pub(super) fingerprint: String,
}

impl Dump {
    /// `programs` are those of green's version; dumps are kept in `directory`, readable by nobody else.
    pub fn new(programs: Programs, directory: impl Into<PathBuf>) -> Self {
        Self { programs, directory: directory.into() }
    }

    fn path(&self, database: &str) -> PathBuf {
        // Names may hold anything, also slashes.
        let name: String = database.bytes().map(|b| format!("{b:02x}")).collect();
        self.directory.join(format!("schema-{name}.dump"))
    }

    /// Whether there is a dump of the database.
    pub fn is_taken(&self, database: &str) -> bool {
        self.path(database).is_file()
    }

    /// Dumps the schema of a database of blue unless there is a dump already. Our own schema, publications and
    /// subscriptions stay out.
    pub async fn take(&self, blue: &Server, database: &str) -> Result<()> {
        let path = self.path(database);
        if path.is_file() {
            return Ok(());
        }
        let prepare = || {
            std::fs::create_dir_all(&self.directory)?;
            std::fs::set_permissions(&self.directory, std::fs::Permissions::from_mode(0o700))
        };
        prepare().map_err(self.file("making", &self.directory))?;
        let fresh = path.with_extension("new");
        let mut command = self.programs.client("pg_dump");
        command.args(["--schema-only", "--format=custom", "--no-publications", "--no-subscriptions"]);
        command.args([
            "--exclude-schema=pgteal",
            "--encoding=UTF8",
            "--no-password",
            "--lock-wait-timeout=30s",
        ]);
        command.arg("--file").arg(&fresh);
        command.envs(blue.conninfo().env_for_tools(database));
        run_program("pg_dump", command, LIMIT).await?;
        std::fs::rename(&fresh, &path).map_err(self.file("keeping", &path))?;
        Ok(())
    }

    /// Removes the dump of a database, and the directory with the last one.
    pub fn discard(&self, database: &str) -> Result<()> {
        let path = self.path(database);
        for path in [path.with_extension("new"), path] {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(self.file("removing", &path)(e));
                }
                _ => {}
            }
        }
        // Refused while there is another dump in it.
        _ = std::fs::remove_dir(&self.directory);
        Ok(())
    }

    fn file(&self, doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CarryError + use<> {
        let path = path.to_owned();
        move |source| ProviderError::File { doing, path, source }.into()
    }

    /// The entries of one section, without what is ours.
    pub(super) async fn script(&self, database: &str, section: Section) -> Result<Script> {
        let path = self.path(database);
        if !path.is_file() {
            let message =
                format!("the schema dump of database {database} is gone from {}", self.directory.display());
            return Err(CarryError::Unreadable(message));
        }
        let mut command = self.programs.client("pg_restore");
        let which = match section {
            Section::PreData => "--section=pre-data",
            Section::PostData => "--section=post-data",
        };
        command.args([which, "--file=-"]).arg(&path);
        let text = run_program("pg_restore", command, LIMIT).await?;
        let fingerprint = fingerprint(&text);
        let (preamble, mut entries) = split(&text);
        entries.retain(|e| !is_ours(e));
        Ok(Script { preamble, entries, fingerprint })
    }
}

/// The fence's triggers stand on tables of users, and its event triggers in no schema: pg_dump cannot leave them out.
fn is_ours(entry: &Entry) -> bool {
    let ours = |name: &str| name == "~pgteal_fence" || name.starts_with("pgteal_");
    match entry.kind.as_str() {
        "TRIGGER" => entry.name.ends_with("~pgteal_fence"),
        "EVENT TRIGGER" => ours(&entry.name),
        "COMMENT" => {
            entry.name.contains("\"~pgteal_fence\"")
                || entry.name.strip_prefix("EVENT TRIGGER ").is_some_and(|n| ours(n.trim_matches('"')))
        }
        _ => entry.schema == "pgteal" || entry.kind == "SCHEMA" && entry.name == "pgteal",
    }
}

/// FNV-1a over the text without the lines that differ from one pg_restore to the next.
fn fingerprint(text: &str) -> String {
    let lines = text.lines().filter(|l| !l.starts_with("\\restrict ") && !l.starts_with("\\unrestrict "));
    let hash = lines.flat_map(|l| l.bytes().chain([b'\n'])).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
