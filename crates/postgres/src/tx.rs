//! A transaction that spans several calls of one session and is rolled back unless committed. Knows no SQL but its own
//! three statements.

use std::ops::Deref;

use futures::FutureExt;

use crate::error::{Error, Result};
use crate::session::Session;

/// An open transaction; everything a [`Session`] can do can be done in it. Dropping it rolls back.
#[derive(Debug)]
pub struct Tx<'a> {
    session: &'a mut Session,
    open: bool,
}

impl Session {
    /// Begins a transaction. Refused on a shared session, where another user's calls would end up inside.
    pub async fn begin(&mut self, doing: &str) -> Result<Tx<'_>> {
        if self.is_shared() {
            return Err(Error::Unexpected {
                place: Box::new(self.place(doing)),
                message: "a transaction was asked for on a shared session".to_owned(),
            });
        }
        // The guard exists before BEGIN is sent: a caller that gives up while waiting leaves no open transaction.
        let tx = Tx { session: self, open: true };
        tx.session.batch(doing, "BEGIN").await?;
        Ok(tx)
    }
}

impl Tx<'_> {
    /// Commits. An error here is [`crate::Certainty::Unknown`] if the answer was lost.
    pub async fn commit(mut self, doing: &str) -> Result<()> {
        // COMMIT of a failed transaction rolls back without an error; the empty SELECT before it brings the error out.
        self.session.batch(doing, "SELECT; COMMIT").await?;
        self.open = false;
        Ok(())
    }

    /// Rolls back.
    pub async fn rollback(mut self, doing: &str) -> Result<()> {
        self.session.batch(doing, "ROLLBACK").await?;
        self.open = false;
        Ok(())
    }
}

impl Deref for Tx<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session
    }
}

impl Drop for Tx<'_> {
    fn drop(&mut self) {
        if self.open && !self.session.is_closed() {
            // The first poll puts ROLLBACK into the connection's queue, before anything the session is asked next.
            let _ = self.session.client().batch_execute("ROLLBACK").now_or_never();
        }
    }
}
