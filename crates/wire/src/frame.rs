//! Framing of typed messages: one tag byte, a big-endian length that counts itself, a body.
//! Owns where a message begins and ends; refuses to know what its body means.

use bytes::{Bytes, BytesMut};

/// Bytes before the body: the tag and the length.
pub const HEADER_LEN: usize = 5;

/// Largest length PostgreSQL itself accepts for a long message: 1 GB less one byte (`PQ_LARGE_MESSAGE_LIMIT`).
pub const LARGE_MESSAGE_LIMIT: usize = 0x3fff_ffff;

/// Why bytes are not a message stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is below 4, the size of the field itself.
    #[error("message {} has the impossible length {len}", tag_name(*tag))]
    InvalidLength {
        /// The message's first byte.
        tag: u8,
        /// The length field as sent.
        len: u32,
    },
    /// Longer than the reader is willing to keep; nothing has been allocated for it.
    #[error("message {} of {len} bytes is over the limit of {limit}", tag_name(*tag))]
    MessageTooLarge {
        /// The message's first byte.
        tag: u8,
        /// Whole length in bytes, tag included.
        len: usize,
        /// The reader's limit in bytes, tag included.
        limit: usize,
    },
}

/// A tag as people write it: the letter, or its hex value when it is not printable.
fn tag_name(tag: u8) -> String {
    if tag.is_ascii_graphic() { format!("'{}'", char::from(tag)) } else { format!("0x{tag:02x}") }
}

/// The first five bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The message's first byte.
    pub tag: u8,
    /// Whole length in bytes: tag, length field and body.
    pub total: usize,
}

impl Header {
    /// Length of the body in bytes.
    #[must_use]
    pub fn body_len(self) -> usize {
        self.total - HEADER_LEN
    }
}

/// Reads the header at the start of `buf`; `None` when fewer than five bytes are there.
///
/// # Errors
/// [`FrameError`] when the length is impossible or the whole message is over `limit` bytes. A relay that streams
/// bodies passes [`LARGE_MESSAGE_LIMIT`] plus one; a reader that keeps whole messages passes what it will buffer.
#[inline]
pub fn peek(buf: &[u8], limit: usize) -> Result<Option<Header>, FrameError> {
    let Some((&[tag, a, b, c, d], _)) = buf.split_first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes([a, b, c, d]);
    if len < 4 {
        return Err(FrameError::InvalidLength { tag, len });
    }
    let total = len as usize + 1;
    if total > limit {
        return Err(FrameError::MessageTooLarge { tag, len: total, limit });
    }
    Ok(Some(Header { tag, total }))
}

/// How many bytes at the start of `buf` are whole messages of the tags that `among` names. What is no such message, not
/// there to its end, or of an impossible length ends the run.
#[must_use]
pub fn run(buf: &[u8], among: impl Fn(u8) -> bool) -> usize {
    let mut end = 0;
    while let Some((&[tag, a, b, c, d], _)) = buf.get(end..).and_then(<[u8]>::split_first_chunk::<HEADER_LEN>)
    {
        let len = u32::from_be_bytes([a, b, c, d]);
        let next = end + len as usize + 1;
        if !among(tag) || len < 4 || next > buf.len() {
            break;
        }
        end = next;
    }
    end
}

/// A complete message that borrows the buffer it was read into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRef<'a> {
    /// The message's first byte.
    pub tag: u8,
    /// The whole message, tag and length included: what a relay forwards.
    pub whole: &'a [u8],
}

impl<'a> FrameRef<'a> {
    /// What follows the length field.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.whole.get(HEADER_LEN..).unwrap_or_default()
    }
}

/// Iterator over the complete messages at the start of a slice. Stops at an incomplete one; [`Frames::consumed`]
/// tells how many bytes were complete messages. After an error it yields nothing more.
#[derive(Debug)]
pub struct Frames<'a> {
    buf: &'a [u8],
    consumed: usize,
    limit: usize,
    failed: bool,
}

impl<'a> Frames<'a> {
    /// Walks `buf`, refusing messages over `limit` bytes.
    #[must_use]
    pub fn new(buf: &'a [u8], limit: usize) -> Self {
        Self { buf, consumed: 0, limit, failed: false }
    }

    /// Bytes of complete messages yielded so far.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.consumed
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<FrameRef<'a>, FrameError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let rest = self.buf.get(self.consumed..)?;
        match peek(rest, self.limit) {
            Ok(Some(header)) => {
                let whole = rest.get(..header.total)?;
                self.consumed += header.total;
                Some(Ok(FrameRef { tag: header.tag, whole }))
            }
            Ok(None) => None,
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

/// A complete message taken out of a receive buffer without copying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The message's first byte.
    pub tag: u8,
    /// The whole message, tag and length included.
    pub whole: Bytes,
}

impl Frame {
    /// What follows the length field.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.whole.get(HEADER_LEN..).unwrap_or_default()
    }
}

/// Splits the first complete message off `buf`; `None` when more bytes are needed.
///
/// # Errors
/// As [`peek`]; `buf` is then left as it was.
pub fn take(buf: &mut BytesMut, limit: usize) -> Result<Option<Frame>, FrameError> {
    match peek(buf, limit)? {
        Some(header) if buf.len() >= header.total => {
            Ok(Some(Frame { tag: header.tag, whole: buf.split_to(header.total).freeze() }))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_run_ends_at_the_first_message_that_is_not_whole_or_of_another_kind() {
        for (bytes, expected) in [
            (&b""[..], 0),
            (b"D\0\0\0\x05a", 6),
            (b"D\0\0\0\x04d\0\0\0\x06abC\0\0\0\x04", 12),
            (b"D\0\0\0\x04D\0\0\0\x06a", 5),
            (b"D\0\0\0\x04D\0\0\0", 5),
            (b"D\0\0\0\x04D\0\0\0\x03", 5),
            (b"D\xff\xff\xff\xff", 0),
            (b"Z\0\0\0\x04D\0\0\0\x04", 0),
        ] {
            assert_eq!(run(bytes, |tag| matches!(tag, b'D' | b'd')), expected, "{bytes:?}");
        }
    }

    #[test]
    fn header_of_each_kind_of_start() {
        type Row<'a> = (&'a [u8], usize, Result<Option<Header>, FrameError>);
        let table: &[Row<'_>] = &[
            (b"", 100, Ok(None)),
            (b"Z\0\0\0", 100, Ok(None)),
            (b"Z\0\0\0\x05I", 100, Ok(Some(Header { tag: b'Z', total: 6 }))),
            (b"S\0\0\0\x04", 5, Ok(Some(Header { tag: b'S', total: 5 }))),
            (b"S\0\0\0\x03", 100, Err(FrameError::InvalidLength { tag: b'S', len: 3 })),
            (b"Q\0\0\0\x64", 100, Err(FrameError::MessageTooLarge { tag: b'Q', len: 101, limit: 100 })),
            (b"Q\0\0\0\x63", 100, Ok(Some(Header { tag: b'Q', total: 100 }))),
            (
                b"Q\xff\xff\xff\xff",
                LARGE_MESSAGE_LIMIT,
                Err(FrameError::MessageTooLarge {
                    tag: b'Q',
                    len: 0x1_0000_0000,
                    limit: LARGE_MESSAGE_LIMIT,
                }),
            ),
        ];
        for (bytes, limit, want) in table {
            assert_eq!(&peek(bytes, *limit), want, "{bytes:?}");
        }
    }

    #[test]
    fn iterator_stops_at_the_incomplete_message() {
        let buf = b"1\0\0\0\x042\0\0\0\x04Z\0\0\0\x05";
        let mut frames = Frames::new(buf, 64);
        let tags: Vec<u8> = frames.by_ref().map(|f| f.unwrap().tag).collect();
        assert_eq!(tags, b"12");
        assert_eq!(frames.consumed(), 10);
    }

    #[test]
    fn taking_leaves_the_rest() {
        let mut buf = BytesMut::from(&b"Z\0\0\0\x05IE\0\0"[..]);
        let frame = take(&mut buf, 64).unwrap().unwrap();
        assert_eq!((frame.tag, frame.body()), (b'Z', &b"I"[..]));
        assert_eq!(take(&mut buf, 64).unwrap(), None);
        assert_eq!(&buf[..], b"E\0\0");
    }

    #[test]
    fn error_text_names_the_message() {
        let error = peek(b"Q\0\0\0\x64", 100).unwrap_err();
        assert_eq!(error.to_string(), "message 'Q' of 101 bytes is over the limit of 100");
    }
}
