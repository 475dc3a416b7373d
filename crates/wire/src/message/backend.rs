//! What a server says of the session itself: parameters, cancel key, transaction status, protocol version.
//! Owns their bytes; refuses to know results of queries.

use super::body::Body;
use super::{MessageError, put, put_cstr, tag::back};
use crate::cancel::CancelKey;
use crate::startup::ProtocolVersion;
use bytes::{BufMut as _, BytesMut};

/// The transaction status in ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: not in a transaction block.
    Idle,
    /// `T`: in a transaction block.
    Open,
    /// `E`: in a failed transaction block; only its end is accepted.
    Failed,
}

impl TransactionStatus {
    /// The byte on the wire.
    #[must_use]
    pub fn as_byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::Open => b'T',
            Self::Failed => b'E',
        }
    }

    /// The status of a byte, if it is one.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::Open),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }
}

/// Reads the body of ReadyForQuery.
///
/// # Errors
/// [`MessageError`] for an empty body or an unknown status.
pub fn parse_ready_for_query(body: &[u8]) -> Result<TransactionStatus, MessageError> {
    let mut body = Body::new("ReadyForQuery", body);
    let status = body.u8("status")?;
    body.end()?;
    TransactionStatus::from_byte(status).ok_or_else(|| body.invalid("status"))
}

/// Appends ReadyForQuery.
pub fn put_ready_for_query(out: &mut BytesMut, status: TransactionStatus) {
    put(out, back::READY_FOR_QUERY, |out| out.put_u8(status.as_byte()));
}

/// ParameterStatus: a setting of the server that clients are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterStatus<'a> {
    /// The setting's name.
    pub name: &'a [u8],
    /// Its value now.
    pub value: &'a [u8],
}

impl<'a> ParameterStatus<'a> {
    /// Reads the body of an `S` message from the server.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(body: &'a [u8]) -> Result<Self, MessageError> {
        let mut body = Body::new("ParameterStatus", body);
        let parsed = Self { name: body.cstr("name")?, value: body.cstr("value")? };
        body.end()?;
        Ok(parsed)
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut BytesMut) {
        put(out, back::PARAMETER_STATUS, |out| {
            put_cstr(out, self.name);
            put_cstr(out, self.value);
        });
    }
}

/// Reads the body of BackendKeyData.
///
/// # Errors
/// [`MessageError`] when the secret is not 4 to 256 bytes.
pub fn parse_backend_key_data(body: &[u8]) -> Result<CancelKey, MessageError> {
    let mut body = Body::new("BackendKeyData", body);
    let pid = body.i32("pid")?;
    CancelKey::new(pid, body.rest()).map_err(|_| body.invalid("secret"))
}

/// Appends BackendKeyData.
pub fn put_backend_key_data(out: &mut BytesMut, key: &CancelKey) {
    put(out, back::BACKEND_KEY_DATA, |out| {
        out.put_i32(key.pid());
        out.put_slice(key.secret());
    });
}

/// NegotiateProtocolVersion: the server speaks an older minor version or does not know some options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NegotiateProtocolVersion<'a> {
    /// The version the server goes on with: the one asked for, or the newest it speaks. Servers send the whole version
    /// number (`SendNegotiateProtocolVersion`), although the documentation says "minor".
    pub newest: ProtocolVersion,
    /// `_pq_.` options the server did not recognise.
    pub unrecognized: Vec<&'a [u8]>,
}

impl<'a> NegotiateProtocolVersion<'a> {
    /// Reads the body of a `v` message.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(body: &'a [u8]) -> Result<Self, MessageError> {
        let mut body = Body::new("NegotiateProtocolVersion", body);
        let newest = ProtocolVersion(body.u32("version")?);
        let count = body.u32("count")?;
        let mut unrecognized = Vec::new();
        for _ in 0..count {
            unrecognized.push(body.cstr("option")?);
        }
        body.end()?;
        Ok(Self { newest, unrecognized })
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut BytesMut) {
        put(out, back::NEGOTIATE_PROTOCOL_VERSION, |out| {
            out.put_u32(self.newest.0);
            out.put_u32(u32::try_from(self.unrecognized.len()).unwrap_or(u32::MAX));
            for name in &self.unrecognized {
                put_cstr(out, name);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn encoded(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut out = BytesMut::new();
        write(&mut out);
        out
    }

    #[test]
    fn ready_for_query_has_three_statuses() {
        for status in [TransactionStatus::Idle, TransactionStatus::Open, TransactionStatus::Failed] {
            let out = encoded(|out| put_ready_for_query(out, status));
            assert_eq!(parse_ready_for_query(&out[5..]), Ok(status));
        }
        for body in [&b""[..], b"X", b"II"] {
            assert!(parse_ready_for_query(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn session_messages_read_back() {
        let status = ParameterStatus { name: b"TimeZone", value: b"UTC" };
        assert_eq!(ParameterStatus::parse(&encoded(|out| status.encode(out))[5..]), Ok(status));
        let key = CancelKey::mint(32).unwrap();
        assert_eq!(parse_backend_key_data(&encoded(|out| put_backend_key_data(out, &key))[5..]), Ok(key));
        let negotiate =
            NegotiateProtocolVersion { newest: ProtocolVersion::V3_0, unrecognized: vec![b"_pq_.a"] };
        let out = encoded(|out| negotiate.encode(out));
        assert_eq!(&out[5..13], b"\0\x03\0\0\0\0\0\x01");
        assert_eq!(NegotiateProtocolVersion::parse(&out[5..]), Ok(negotiate));
    }

    #[test]
    fn a_count_beyond_the_body_is_short_not_allocated() {
        let body = b"\0\x03\0\0\xff\xff\xff\xff_pq_.a\0";
        assert!(matches!(NegotiateProtocolVersion::parse(body), Err(MessageError::Short { .. })));
    }
}
