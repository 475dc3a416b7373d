//! Owns the end of a session: what the client is told, and how the server learns of it.
//! Refuses to decide that a session ends.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use pgteal_wire::frame::FrameError;
use pgteal_wire::message::report::Report;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{OpenError, Session};
use crate::pool;
use crate::stats::{Limit, Stats};
use crate::upstream::{TalkError, Upstream};

/// How long a client may take to read its last message.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long a server may take to abort a transaction whose client was terminated.
const ABORT: Duration = Duration::from_secs(5);

/// Why a session ends.
#[derive(Debug)]
pub(super) enum End {
    /// The client has gone, and nothing of our own was under way.
    Left(Option<io::Error>),
    ClientGone(Option<io::Error>),
    ServerGone(Option<io::Error>),
    /// The server ended it while we asked something: its own message, for the client.
    ServerSaid(Vec<u8>),
    BadBytes {
        from_client: bool,
        error: FrameError,
    },
    /// It holds something that cannot be carried.
    Pinned(String),
    /// A wait of the proxy's own has reached its bound, or the session cannot be moved.
    Bounded(&'static str),
    /// After a repoint no upstream is to be had.
    NoUpstream(OpenError),
    /// Somebody said so.
    Terminated {
        why: String,
        reply: Option<mpsc::Sender<()>>,
    },
}

impl End {
    /// A conversation of our own with the session's server has failed.
    pub(super) fn lost(error: TalkError) -> Self {
        match error {
            TalkError::Fatal { whole, .. } => Self::ServerSaid(whole),
            TalkError::Io(error) => Self::ServerGone(Some(error)),
            _ => Self::ServerGone(None),
        }
    }

    pub(super) fn pinned(what: &str) -> Self {
        Self::Pinned(format!(
            "terminating connection: this session holds {what}, which cannot be carried to the new server"
        ))
    }
}

impl Session {
    /// Ends the session, which lived on this thread.
    pub(super) async fn end(&mut self, why: End, thread: usize) {
        self.entry.held.store(false, std::sync::atomic::Ordering::Relaxed);
        tracing::debug!(session = self.entry.id, ?why, "session ends");
        match why {
            End::Left(_) if self.leaves_upstream() => {
                // Cancel requests that come from now on are for nobody.
                self.entry.details().cancel = None;
                if let Some(upstream) = self.upstream.take() {
                    pool::give_back(&self.shared, thread, upstream);
                }
                if self.down.has_cleared() {
                    self.last_words(None).await;
                }
            }
            End::Left(error) | End::ClientGone(error) => {
                tracing::debug!(session = self.entry.id, ?error, "client gone");
                // A client that has read the server's last word may hang up before the server does.
                if self.server_said_why {
                    Stats::count(&self.shared.stats.upstream_lost);
                }
            }
            End::ServerGone(error) => {
                tracing::debug!(session = self.entry.id, ?error, "server gone");
                if !self.leaving {
                    Stats::count(&self.shared.stats.upstream_lost);
                }
                let lost = Report::fatal("08006", "server closed the connection unexpectedly");
                let told = self.leaving || self.server_said_why;
                self.last_words((!told).then_some(lost)).await;
                return;
            }
            End::ServerSaid(whole) => {
                Stats::count(&self.shared.stats.upstream_lost);
                let _ = tokio::time::timeout(LAST_WORDS, self.client.write_all(&whole)).await;
                return;
            }
            End::BadBytes { from_client, error } => {
                Stats::count(&self.shared.stats.closed_by_proxy);
                if from_client && matches!(error, FrameError::MessageTooLarge { .. }) {
                    self.shared.stats.hit(Limit::MaxPacketSize);
                }
                let whose = if from_client { "client" } else { "server" };
                self.last_words(Some(Report::fatal(
                    "08P01",
                    format!("invalid message from the {whose}: {error}"),
                )))
                .await;
            }
            End::Pinned(message) => {
                self.end_57p01(message).await;
                // In the middle of the pause, as every session that turns; what a replication connection holds on its
                // server (a slot) is let go at once.
                if let Some(upstream) = self.upstream.take_if(|_| !self.replication) {
                    self.shared.farewell.leave(upstream);
                }
            }
            End::Bounded(what) => self.end_57p01(format!("terminating connection: {what}")).await,
            End::NoUpstream(error) => match error.server_message() {
                Some(whole) => {
                    Stats::count(&self.shared.stats.closed_by_proxy);
                    let whole = whole.to_vec();
                    let _ = tokio::time::timeout(LAST_WORDS, self.client.write_all(&whole)).await;
                }
                None => {
                    self.end_57p01(format!(
                        "terminating connection: the new server cannot take this session: {error}"
                    ))
                    .await;
                }
            },
            End::Terminated { why, reply } => {
                self.end_57p01(why).await;
                if let Some(upstream) = self.upstream.take() {
                    abort(upstream).await;
                }
                self.leave_gate();
                if let Some(reply) = reply {
                    let _ = reply.try_send(());
                }
            }
        }
        if let Some(upstream) = self.upstream.take() {
            upstream.close_later();
        }
        if let super::Second::Ready { upstream, .. } = std::mem::take(&mut self.second) {
            upstream.close_later();
        }
    }

    async fn end_57p01(&mut self, message: String) {
        Stats::count(&self.shared.stats.closed_by_proxy);
        Stats::count(&self.shared.stats.ended_57p01);
        self.last_words(Some(Report::fatal("57P01", message))).await;
    }

    /// Writes what is on the way to the client and then a last message, unless that would cut a message in two.
    async fn last_words(&mut self, report: Option<Report>) {
        let whole = self.down_walk.between_messages();
        let words = async {
            std::future::poll_fn(|cx| self.down.poll_drain(cx, &mut self.client)).await?;
            if let (true, Some(report)) = (whole, report) {
                let mut out = BytesMut::new();
                report.encode(&mut out);
                self.client.write_all(&out).await?;
            }
            self.client.flush().await?;
            self.client.shutdown().await
        };
        let _ = tokio::time::timeout(LAST_WORDS, words).await;
    }
}

/// Makes the server abort what is open, and waits until it is gone: a backend that runs a statement does not see a
/// closed connection, so the statement is cancelled; the end of our half then ends the session.
async fn abort(mut upstream: Upstream) {
    let gone = async {
        if let Some(way) = &upstream.cancel {
            let _ = way.send().await;
        }
        upstream.stream.shutdown().await?;
        let mut sink = vec![0; 8192];
        while upstream.stream.read(&mut sink).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    if tokio::time::timeout(ABORT, gone).await.is_err() {
        tracing::warn!("a terminated session's server did not close the connection within {ABORT:?}");
    }
}

/// Whether an error ends its session, by its beginning: severities come first (PostgreSQL documentation, "Error and Notice
/// Message Fields").
pub(super) fn begins_fatal(start: &[u8]) -> bool {
    let severity = start.split(|byte| *byte == 0).find(|field| field.first() == Some(&b'V'));
    matches!(severity, Some(b"VFATAL" | b"VPANIC"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_beginning_of_an_error_tells_whether_it_is_the_last_word() {
        let cases: [(&[u8], bool); 5] = [
            (b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to a very lo", true),
            (b"SSCHWERWIEGEND\0VPANIC\0C57P01\0M\0\0", true),
            (b"SERROR\0VERROR\0C22012\0Mdivision by zero\0VFATAL", false),
            (b"SFEHLER\0VER", false),
            (b"", false),
        ];
        for (start, fatal) in cases {
            assert_eq!(begins_fatal(start), fatal, "{}", String::from_utf8_lossy(start));
        }
    }
}
