//! The typed messages of both directions: parsers that borrow, encoders that append to a buffer.
//! Owns one file per family; refuses to know when a message may be sent (that is the tracker's).

use bytes::{BufMut as _, BytesMut};

pub mod authentication;
pub mod backend;
pub mod body;
pub mod copy;
pub mod frontend;
pub mod report;
pub mod rows;
pub mod tag;

/// Why a message's body is not what its tag promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The body ends inside a field.
    #[error("{message} ends inside its {field}")]
    Short {
        /// The message's name in the protocol documentation.
        message: &'static str,
        /// What was being read.
        field: &'static str,
    },
    /// Bytes follow the last field.
    #[error("{message} has {extra} bytes after its last field")]
    Trailing {
        /// The message's name in the protocol documentation.
        message: &'static str,
        /// How many bytes.
        extra: usize,
    },
    /// A field has a value that the protocol does not know.
    #[error("{message} has an invalid {field}")]
    Invalid {
        /// The message's name in the protocol documentation.
        message: &'static str,
        /// Which field.
        field: &'static str,
    },
}

/// Appends one message: `tag`, length, and whatever `body` writes.
pub fn put(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u8(tag);
    out.put_u32(0);
    body(out);
    let len = u32::try_from(out.len() - start - 1).unwrap_or(u32::MAX);
    if let Some(field) = out.get_mut(start + 1..start + 5) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

/// Appends a zero-terminated string; a zero byte inside ends it there, for the protocol cannot carry it.
pub fn put_cstr(out: &mut BytesMut, text: &[u8]) {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    out.put_slice(text.get(..end).unwrap_or_default());
    out.put_u8(0);
}
