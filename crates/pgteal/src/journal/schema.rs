//! The file: how it is opened, recognised and brought to the newest format.
//! Refuses files of other programs, of newer ones, and a SQLite that may lose commits.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgteal_saga::JournalError;
use rusqlite::{Connection, OpenFlags};

use super::fault;

/// `teal` in ASCII, in the file's header: this is a journal of ours.
const APPLICATION_ID: i64 = 0x7465_616c;
/// SQLite before 3.51.3 can lose commits when a write meets a checkpoint at the start of the WAL
/// (<https://sqlite.org/wal.html#walresetbug>).
const LEAST_SQLITE: i32 = 3_051_003;
/// How long a lock of a reader or a checkpoint is waited for.
const BUSY: Duration = Duration::from_secs(5);
/// The script that leads from each format to the next.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE deployment (
        id          TEXT PRIMARY KEY,
        epoch       INTEGER NOT NULL CHECK (epoch > 0),
        holder      TEXT NOT NULL,
        acquired_us INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE run (
        number      INTEGER PRIMARY KEY AUTOINCREMENT,
        id          TEXT NOT NULL UNIQUE,
        deployment  TEXT NOT NULL REFERENCES deployment (id),
        kind        TEXT NOT NULL,
        created_us  INTEGER NOT NULL,
        seq         INTEGER NOT NULL CHECK (seq > 0),
        link        TEXT NOT NULL
    ) STRICT;
    CREATE TABLE event (
        run         INTEGER NOT NULL REFERENCES run (number),
        seq         INTEGER NOT NULL CHECK (seq > 0),
        line        TEXT NOT NULL,
        link        TEXT NOT NULL,
        PRIMARY KEY (run, seq)
    ) STRICT, WITHOUT ROWID;
"];

/// Opens the file for writing, makes it if it is not there, and brings it to the newest format.
pub(super) fn open(path: &Path) -> Result<Connection, JournalError> {
    check_sqlite(rusqlite::version_number(), rusqlite::version())?;
    check_path(path)?;
    let failed = |error: rusqlite::Error| fault::of(path, &error);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // It tells of hosts, roles and errors: for its owner only, and so the files that SQLite makes beside it. Whatever is in
    // the way of making it, SQLite says it better.
    let _ = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    let format = recognise(path, &connection)?;
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(JournalError::ReadOnly {
            place: path.display().to_string(),
            what: format!("write-ahead logging is not possible there, the mode stays {mode}"),
        });
    }
    // Checkpoints happen between runs, never inside a cutover; a journal of ours stays small.
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = 0")
        .map_err(failed)?;
    migrate(&mut connection, format).map_err(failed)?;
    Ok(connection)
}

/// Opens the file for reading. Takes no lock that a writer would notice.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, JournalError> {
    check_sqlite(rusqlite::version_number(), rusqlite::version())?;
    check_path(path)?;
    if !path.exists() {
        return Err(JournalError::Missing { place: path.display().to_string() });
    }
    match readable(path, path.as_os_str(), OpenFlags::empty()) {
        // Even a reader of a write-ahead log makes a file beside it. Where it cannot, and no log is there to be read,
        // the file alone is all there is (<https://sqlite.org/wal.html#readonly>).
        Err(JournalError::ReadOnly { .. }) if !beside(path, "-wal").exists() => {
            readable(path, &immutable(path), OpenFlags::SQLITE_OPEN_URI)
        }
        other => other,
    }
}

fn readable(path: &Path, name: &OsStr, more: OpenFlags) -> Result<Connection, JournalError> {
    let failed = |error: rusqlite::Error| fault::of(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    let connection = Connection::open_with_flags(name, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    match recognise(path, &connection)? {
        0 => Err(not_ours(path, "it is empty")),
        _ => Ok(connection),
    }
}

/// The file's name as a URI that promises SQLite that nobody writes to it.
fn immutable(path: &Path) -> OsString {
    let mut uri = b"file:".to_vec();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'?' | b'#' | b'%' => uri.extend(format!("%{byte:02x}").bytes()),
            other => uri.push(*other),
        }
    }
    uri.extend(b"?immutable=1");
    OsString::from_vec(uri)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn check_sqlite(number: i32, name: &str) -> Result<(), JournalError> {
    if number >= LEAST_SQLITE {
        return Ok(());
    }
    Err(JournalError::Unfit {
        what: format!("SQLite {name} may lose commits of a journal; 3.51.3 or newer is needed"),
    })
}

fn check_path(path: &Path) -> Result<(), JournalError> {
    if path.is_dir() { Err(not_ours(path, "it is a directory")) } else { Ok(()) }
}

/// The format of the file: 0 for a new one.
fn recognise(path: &Path, connection: &Connection) -> Result<i64, JournalError> {
    let number = |sql: &str| {
        connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(|error| fault::of(path, &error))
    };
    let application = number("PRAGMA application_id")?;
    let format = number("PRAGMA user_version")?;
    if application != APPLICATION_ID {
        let tables = number("SELECT count(*) FROM sqlite_schema")?;
        if application == 0 && format == 0 && tables == 0 {
            return Ok(0);
        }
        return Err(not_ours(path, "it is a SQLite file of another program"));
    }
    let known = MIGRATIONS.len() as i64;
    if format > known {
        return Err(JournalError::TooNew { place: path.display().to_string(), found: format, known });
    }
    let checked: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| fault::of(path, &error))?;
    if checked != "ok" {
        return Err(JournalError::Corrupt { place: path.display().to_string(), what: checked });
    }
    Ok(format)
}

fn migrate(connection: &mut Connection, format: i64) -> rusqlite::Result<()> {
    for (to, script) in (1_i64..).zip(MIGRATIONS).filter(|(to, _)| *to > format) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(script)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", to)?;
        transaction.commit()?;
    }
    Ok(())
}

fn not_ours(path: &Path, what: &str) -> JournalError {
    JournalError::NotAJournal { place: path.display().to_string(), what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_sqlite_that_is_built_in_is_fit_and_older_ones_are_refused() {
        check_sqlite(rusqlite::version_number(), rusqlite::version()).unwrap();
        let error = check_sqlite(3_051_002, "3.51.2").unwrap_err();
        assert!(error.to_string().contains("3.51.2"), "{error}");
    }

    #[test]
    fn a_closed_journal_is_read_where_nothing_can_be_made_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("50% of #7?.db");
        drop(open(&path).unwrap());
        assert!(!beside(&path, "-wal").exists());
        let name = immutable(&path);
        let connection = readable(&path, &name, OpenFlags::SQLITE_OPEN_URI).unwrap();
        let runs: i64 = connection.query_row("SELECT count(*) FROM run", [], |row| row.get(0)).unwrap();
        assert_eq!(runs, 0);
        assert!(!beside(&path, "-shm").exists(), "it was not opened as one that nobody writes to");
    }
}
