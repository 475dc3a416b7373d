//! What SQLite says, as facts about the journal and its path.
//! Refuses to give advice.

use std::path::Path;

use pgteal_saga::JournalError;
use rusqlite::ErrorCode;

/// Room below which a failed write counts as a full disk, in bytes.
const NO_ROOM: u64 = 64 * 1024;

/// The error of the journal at `path` for an error of SQLite.
pub(super) fn of(path: &Path, error: &rusqlite::Error) -> JournalError {
    let place = path.display().to_string();
    let what = error.to_string();
    let rusqlite::Error::SqliteFailure(failure, _) = error else {
        return JournalError::Io { place, what };
    };
    match failure.code {
        ErrorCode::DiskFull => JournalError::Full { place },
        ErrorCode::SystemIoFailure if is_full(path) => JournalError::Full { place },
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => JournalError::ReadOnly { place, what },
        ErrorCode::CannotOpen if !path.exists() => JournalError::Missing { place },
        ErrorCode::CannotOpen => JournalError::ReadOnly { place, what },
        ErrorCode::DatabaseCorrupt => JournalError::Corrupt { place, what },
        ErrorCode::NotADatabase => {
            JournalError::NotAJournal { place, what: "it is not a SQLite file".into() }
        }
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            JournalError::Locked { place, holder: "another program that has the file open".into() }
        }
        _ => JournalError::Io { place, what },
    }
}

/// SQLite reports some failures for want of room as plain I/O errors.
fn is_full(path: &Path) -> bool {
    let there = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    rustix::fs::statvfs(there).is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) < NO_ROOM)
}
