//! Owns one connection to a server that is logged in: its stream, what the server reported, its cancel key, and the
//! course (side and turn) it was opened for. Refuses to know clients and transactions.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use pgteal_wire::frame;
use pgteal_wire::message::backend::ParameterStatus;
use pgteal_wire::message::frontend::put_terminate;
use pgteal_wire::message::report::Fields;
use pgteal_wire::message::tag::back;
use pgteal_wire::message::{MessageError, rows};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::cancel::Way;
use crate::gate::Course;
use crate::pool::Home;
use crate::roll::Ticket;
use crate::stream::Stream;

/// What the server reported of its settings, in the order of arrival: each name and each value with a zero byte behind
/// it, as they were sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(Vec<u8>);

impl Params {
    pub(crate) fn set(&mut self, name: &[u8], value: &[u8]) {
        let put = |out: &mut Vec<u8>, name: &[u8], value: &[u8]| {
            for part in [name, b"\0", value, b"\0"] {
                out.extend_from_slice(part);
            }
        };
        match self.value(name) {
            None => put(&mut self.0, name, value),
            Some(old) if old == value => {}
            Some(old) => {
                let mut all = Vec::with_capacity(self.0.len() - old.len() + value.len());
                for (known, old) in self.iter() {
                    put(&mut all, known, if known == name { value } else { old });
                }
                self.0 = all;
            }
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.value(name.as_bytes())
    }

    fn value(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.0.as_slice();
        let mut part = move || {
            let part = rest.get(..memchr::memchr(0, rest)?)?;
            rest = rest.get(part.len() + 1..)?;
            Some(part)
        };
        std::iter::from_fn(move || Some((part()?, part()?)))
    }

    /// Takes the body of a ParameterStatus.
    pub(crate) fn take(&mut self, body: &[u8]) {
        if let Ok(status) = ParameterStatus::parse(body) {
            self.set(status.name, status.value);
        }
    }

    /// The messages that tell a client of everything that is different here from what it was told.
    pub(crate) fn changes_since(&self, told: &Self) -> BytesMut {
        let mut out = BytesMut::new();
        for (name, value) in self.iter() {
            if told.value(name) != Some(value) {
                ParameterStatus { name, value }.encode(&mut out);
            }
        }
        out
    }
}

/// A connection to a server, logged in.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) stream: Stream,
    pub(crate) params: Params,
    pub(crate) cancel: Option<Arc<Way>>,
    pub(crate) course: Course,
    pub(crate) ticket: Ticket,
    /// Bytes that came after the last message that was waited for.
    pub(crate) early: BytesMut,
    /// Where it goes when its client has left; `None` when it is of use to that client only.
    pub(crate) home: Option<Box<Home>>,
}

/// What became of a connection that nobody used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Idle {
    Lost,
    /// It is the one that the session is to use now.
    Ours,
}

/// Why a conversation of our own with a server failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TalkError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error(transparent)]
    Frame(#[from] frame::FrameError),
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The server ended the session: its own message.
    #[error("{message}")]
    Fatal { whole: Vec<u8>, message: String },
}

/// What one unit of our own conversation brought.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) rows: Vec<Vec<Option<Vec<u8>>>>,
    /// The first error, in the server's words.
    pub(crate) error: Option<String>,
    /// Its SQLSTATE; empty when there is none, or when the refusal is ours.
    pub(crate) sqlstate: String,
    /// The last command tag.
    pub(crate) tag: Vec<u8>,
    /// It ended inside a transaction block that failed.
    pub(crate) in_failed_block: bool,
}

/// The largest answer to a question of our own, in bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

impl Upstream {
    /// Reads the answer of one unit, up to its `ReadyForQuery`. Messages that belong to nobody's question (parameter
    /// changes, notices, notifications) go to `aside`.
    ///
    /// # Errors
    /// When the connection is lost, or what comes is not the protocol.
    pub(crate) async fn read_unit(&mut self, aside: &mut BytesMut) -> Result<Answer, TalkError> {
        let mut answer = Answer::default();
        let mut size = 0;
        loop {
            while let Some(frame) = frame::take(&mut self.early, MAX_ANSWER)? {
                match frame.tag {
                    back::READY_FOR_QUERY => {
                        answer.in_failed_block = frame.body() == b"E";
                        return Ok(answer);
                    }
                    back::COMMAND_COMPLETE => {
                        answer.tag = frame.body().strip_suffix(b"\0").unwrap_or_default().to_vec();
                    }
                    back::DATA_ROW => {
                        size += frame.whole.len();
                        if size <= MAX_ANSWER {
                            let row = rows::parse_data_row(frame.body())?;
                            answer
                                .rows
                                .push(row.into_iter().map(|value| value.map(<[u8]>::to_vec)).collect());
                        } else {
                            answer.error =
                                Some(format!("the answer is over the limit of {MAX_ANSWER} bytes"));
                        }
                    }
                    back::ERROR => {
                        let fields = Fields::parse(frame.body())?;
                        let message = fields.message().to_owned();
                        if fields.is_fatal() {
                            return Err(TalkError::Fatal { whole: frame.whole.to_vec(), message });
                        }
                        if answer.error.is_none() {
                            answer.sqlstate = fields.sqlstate().to_owned();
                            answer.error = Some(message);
                        }
                    }
                    back::PARAMETER_STATUS => {
                        self.params.take(frame.body());
                        aside.extend_from_slice(&frame.whole);
                    }
                    back::NOTICE | back::NOTIFICATION => aside.extend_from_slice(&frame.whole),
                    _ => {}
                }
            }
            if self.stream.read_buf(&mut self.early).await? == 0 {
                return Err(TalkError::Closed);
            }
        }
    }

    /// Reads what a server says to a connection that nobody uses: settings are noted, notices and notifications are for nobody;
    /// ready when it is lost, as it is when anything else is said, which would answer whoever uses it next. `ours` tells
    /// whether somebody should use it by now: then what is read stays, for them.
    pub(crate) fn poll_idle(&mut self, cx: &mut Context<'_>, ours: impl Fn() -> bool) -> Poll<Idle> {
        loop {
            let mut chunk = [0; 512];
            let mut buf = ReadBuf::new(&mut chunk);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if buf.filled().is_empty() => return Poll::Ready(Idle::Lost),
                Ok(()) => self.early.extend_from_slice(buf.filled()),
                Err(_) => return Poll::Ready(Idle::Lost),
            }
            // Asked after the read: what is dropped below was said before the route changed.
            if ours() {
                return Poll::Ready(Idle::Ours);
            }
            loop {
                match frame::take(&mut self.early, MAX_ANSWER) {
                    Ok(Some(frame)) if frame.tag == back::PARAMETER_STATUS => self.params.take(frame.body()),
                    Ok(Some(frame)) if matches!(frame.tag, back::NOTICE | back::NOTIFICATION) => {}
                    Ok(None) => break,
                    Ok(Some(_)) | Err(_) => return Poll::Ready(Idle::Lost),
                }
            }
        }
    }

    /// Whether a connection that nobody uses is known to be lost. What the server said of settings is noted.
    pub(crate) fn is_lost(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.poll_idle(&mut cx, || false) == Poll::Ready(Idle::Lost)
    }

    /// Whether a connection that nobody uses is there, and nothing is to be read from it. The system is asked: what it knows
    /// already the runtime may learn a moment later.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        let lost = std::future::poll_fn(|cx| Poll::Ready(self.poll_idle(cx, || false).is_ready()));
        !tokio::task::unconstrained(lost).await && self.early.is_empty() && self.stream.has_nothing_to_read()
    }

    /// Says goodbye, and waits until the server has closed its end: a second at most.
    pub(crate) async fn close(mut self) {
        let mut out = BytesMut::new();
        put_terminate(&mut out);
        let farewell = async {
            self.stream.write_all(&out).await?;
            self.stream.shutdown().await?;
            let mut sink = [0; 512];
            while self.stream.read(&mut sink).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), farewell).await;
    }

    /// Says goodbye and closes, off anybody's path.
    pub(crate) fn close_later(self) {
        tokio::spawn(self.close());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn settings_are_known_by_their_last_value_and_in_the_order_of_arrival() {
        let (mut params, told) = (Params::default(), Params::default());
        for (name, value) in
            [("a", "1"), ("empty", ""), ("b", "2"), ("a", "longer"), ("b", ""), ("empty", "")]
        {
            params.take(&[name.as_bytes(), value.as_bytes(), b""].join(&0));
        }
        let all: Vec<_> = params.iter().collect();
        assert_eq!(all, [(&b"a"[..], &b"longer"[..]), (b"empty", b""), (b"b", b"")]);
        assert_eq!((params.get("empty"), params.get("c")), (Some(&b""[..]), None));
        assert_eq!(&params.changes_since(&told)[..7], b"S\0\0\0\x0da\0");
        assert!(params.changes_since(&params.clone()).is_empty());
    }
}
