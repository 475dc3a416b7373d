//! A raise or a lower whose work is done and which waits for its commit: the DDL takes milliseconds that nobody should
//! wait for. Knows the transaction it keeps open, not when it is to end.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Result;
use crate::fence::Fence;
use crate::session::Session;

/// What counts as after the fence is judged by the instant of the commit, not by that of the staging.
const NOW: &str = "UPDATE pgteal.state SET value = value || jsonb_build_object('at', clock_timestamp())
    WHERE key = 'fence'";

/// A change of the fence in the open transaction of a session of its own. Nobody sees it before [`Staged::commit`], and
/// it is gone with the session. How long it may wait is the session's `idle_in_transaction_session_timeout`.
#[derive(Debug)]
pub struct Staged {
    session: Session,
    /// What goes before the commit.
    last: String,
    /// Whether its one end is still to come.
    open: AtomicBool,
}

impl Fence {
    /// Does all of [`Fence::raise`] but the commit, which is then not flushed by itself but with the next one. Until that,
    /// whoever else calls [`crate::state::put`] in the database waits; so would an apply worker, which a server that
    /// clients write to does not have. Refused if `epoch` is lower than one seen here, and on a shared session.
    pub async fn stage_raise(&self, session: Session, epoch: i64) -> Result<Staged> {
        // Not waited for by itself: the marker is only sent to the other side when it and all before it are on the disk.
        let sql = format!("SET LOCAL synchronous_commit = off; {}", self.raising(&session, epoch));
        Staged::begin(session, "staging the raise of the fence", &sql, NOW.to_owned()).await
    }

    /// Does all of [`Fence::lower`] but what would stop an apply worker: the row that remembers the fence comes in from the
    /// other side too, so it is written with the commit. Refused as [`Fence::stage_raise`] is.
    pub async fn stage_lower(&self, session: Session, epoch: i64) -> Result<Staged> {
        // Waited for on the disk, other than the raise: a server that comes back with its fence up lets nobody write, and
        // who logs in then stays read-only.
        let sql = self.opening(&session);
        Staged::begin(session, "staging the lowering of the fence", &sql, self.lowered(epoch)).await
    }
}

impl Staged {
    async fn begin(session: Session, doing: &str, sql: &str, last: String) -> Result<Self> {
        if session.is_shared() {
            return Err(session.unexpected(doing, "a transaction was asked for on a shared session"));
        }
        // Said once and taken back: the first time costs more, and no lock of it is left.
        let rehearsal = format!("SAVEPOINT rehearsal; {last}; ROLLBACK TO SAVEPOINT rehearsal");
        session.batch(doing, &format!("BEGIN; {rehearsal}; {sql}")).await?;
        Ok(Self { session, last, open: AtomicBool::new(true) })
    }

    /// Whether it was neither committed nor taken back.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    /// The session, for calls that must come right after the commit.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Lets it take effect, as of now; one round trip. After an error the session is of no use.
    pub async fn commit(&self) -> Result<()> {
        self.open.store(false, Ordering::SeqCst);
        self.session.batch("committing the staged fence", &format!("{}; COMMIT", self.last)).await
    }

    /// Takes it back.
    pub async fn cancel(&self) -> Result<()> {
        self.open.store(false, Ordering::SeqCst);
        self.session.batch("taking back the staged fence", "ROLLBACK").await
    }
}
