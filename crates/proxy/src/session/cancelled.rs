//! Owns the cancel of a statement that no server has: one that is held, or waits for its upstream. The client is answered at
//! once, and what it had sent of the statement is dropped.
//! Refuses to know the keys and ways of cancel requests.

use std::sync::atomic::Ordering::Relaxed;

use bytes::BytesMut;
use pgteal_wire::frame::{self, FrameError, LARGE_MESSAGE_LIMIT};
use pgteal_wire::message::backend::{TransactionStatus, put_ready_for_query};
use pgteal_wire::message::report::Report;
use pgteal_wire::message::tag::front;
use tokio::sync::mpsc;

use super::Session;
use super::ending::End;
use crate::cancel;
use crate::registry::Command;

/// What is still to be dropped of a cancelled unit.
#[derive(Debug, Clone, Copy)]
pub(super) enum Dropping {
    /// So many bytes of a message, and then, unless it was the unit's last, further ones.
    Bytes { left: usize, last: bool },
    /// Messages up to the next Sync.
    ToSync,
    /// Nothing: ReadyForQuery is due.
    Due,
}

impl Session {
    /// A cancel request for this session: answers it when the statement has not left, else passes it to the server.
    /// Whoever asked learns by `reply`'s being dropped that it has arrived.
    pub(super) async fn cancel(&mut self, reply: Option<mpsc::Sender<()>>) -> Result<(), End> {
        let waits = self.before.is_some() || self.upstream.is_none();
        if !waits || !self.tracker.at_boundary() || self.dropping.is_some() {
            if let Some(again) = &mut self.again {
                again.cancelled = true;
            }
            let entry = self.entry.clone();
            tokio::spawn(async move {
                cancel::to_server(entry).await;
                drop(reply);
            });
            return Ok(());
        }
        if let Some(again) = &mut self.again
            && again.has_begun()
        {
            // The client is inside a transaction: only its server can tell it that this has failed.
            again.goes_last();
            return Ok(());
        }
        let Ok(Some(header)) = frame::peek(self.up.pending(), LARGE_MESSAGE_LIMIT + 1) else {
            return Ok(());
        };
        let dropping = match header.tag {
            front::QUERY | front::FUNCTION_CALL => Dropping::Bytes { left: header.total, last: true },
            front::PARSE | front::BIND | front::DESCRIBE | front::EXECUTE | front::CLOSE | front::SYNC => {
                Dropping::ToSync
            }
            // No statement, so there is nothing to cancel.
            _ => return Ok(()),
        };
        // The answer goes behind what the server has begun to say, a notification.
        self.await_rest().await?;
        if !self.hears_whole_messages() {
            // Asked again, so that nobody waits in vain for a statement that it believes cancelled.
            self.entry.tell(Command::Cancel { reply });
            return Ok(());
        }
        self.again = None;
        self.dropping = Some(dropping);
        if self.before.take().is_some() {
            self.entry.held.store(false, Relaxed);
        }
        let mut out = BytesMut::new();
        // The words of `ProcessInterrupts` (`src/backend/tcop/postgres.c`).
        Report::error("57014", "canceling statement due to user request").encode(&mut out);
        self.tell_client(&out).await
    }

    /// Drops what there is of a cancelled unit; true when it is dropped to its end.
    pub(super) fn drop_cancelled(&mut self) -> Result<bool, FrameError> {
        while let Some(dropping) = self.dropping {
            // What was cleared before belongs to the server.
            if self.up.has_cleared() {
                return Ok(false);
            }
            match dropping {
                Dropping::Bytes { left: 0, last } => {
                    self.dropping = Some(if last { Dropping::Due } else { Dropping::ToSync });
                }
                Dropping::Bytes { left, last } => {
                    let count = left.min(self.up.pending().len());
                    if count == 0 {
                        return Ok(false);
                    }
                    self.up.clear(count);
                    self.up.drop_cleared();
                    self.dropping = Some(Dropping::Bytes { left: left - count, last });
                }
                Dropping::ToSync => {
                    let Some(header) = frame::peek(self.up.pending(), LARGE_MESSAGE_LIMIT + 1)? else {
                        return Ok(false);
                    };
                    let last = header.tag == front::SYNC;
                    self.dropping = (header.tag != front::TERMINATE)
                        .then_some(Dropping::Bytes { left: header.total, last });
                }
                Dropping::Due => {
                    let mut out = BytesMut::new();
                    put_ready_for_query(&mut out, TransactionStatus::Idle);
                    // In the middle of a notification, then behind it; without room now, then when the client has read.
                    if !self.down_walk.between_messages() || !self.down.put_cleared(&out) {
                        return Ok(false);
                    }
                    self.dropping = None;
                }
            }
        }
        Ok(true)
    }
}
