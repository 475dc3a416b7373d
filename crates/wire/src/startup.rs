//! The untyped first packet of a connection: SSLRequest, GSSENCRequest, CancelRequest, StartupMessage.
//! Owns their bytes; refuses to know what a parameter does to a server.
//!
//! Source: PostgreSQL documentation, "Message Formats"; limits from `src/include/libpq/pqcomm.h`.

use crate::cancel::{CancelKey, SecretLength};

/// Longest first packet a server takes, in bytes without its length field (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_STARTUP_PACKET: usize = 10_000;

/// What names of protocol options begin with.
pub const PROTOCOL_OPTION: &[u8] = b"_pq_.";

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// The whole SSLRequest packet.
pub const SSL_REQUEST_PACKET: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A protocol version as the wire packs it: major in the upper 16 bits, minor in the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProtocolVersion(pub u32);

impl ProtocolVersion {
    /// What every server since 7.4 speaks.
    pub const V3_0: Self = Self(3 << 16);
    /// Longer cancel keys; servers since 18.
    pub const V3_2: Self = Self(3 << 16 | 2);
    /// What stands in the place of a version in an SSLRequest, shown as 1234.5679.
    pub const SSL: Self = Self(SSL_REQUEST);
    /// What stands in the place of a version in a GSSENCRequest, shown as 1234.5680.
    pub const GSSENC: Self = Self(GSSENC_REQUEST);

    /// Upper half.
    #[must_use]
    pub fn major(self) -> u32 {
        self.0 >> 16
    }

    /// Lower half.
    #[must_use]
    pub fn minor(self) -> u32 {
        self.0 & 0xffff
    }
}

impl std::fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

/// Why a first packet is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// Length below 8 or over [`MAX_STARTUP_PACKET`].
    #[error("invalid length of startup packet: {0}")]
    InvalidLength(u32),
    /// Major version other than 3.
    #[error("unsupported frontend protocol {0}: server supports 3.0 to 3.2")]
    UnsupportedVersion(ProtocolVersion),
    /// Parameters are not zero-terminated pairs with a final zero.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    InvalidLayout,
    /// A cancel request with a secret of an impossible length.
    #[error(transparent)]
    CancelKey(#[from] SecretLength),
}

/// One startup parameter, in the order sent. Both are bytes: the encoding is not agreed yet, and servers take any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Its name, for example `user`, `application_name`, `_pq_.something`.
    pub name: Vec<u8>,
    /// Its value without the terminating zero.
    pub value: Vec<u8>,
}

/// The StartupMessage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupMessage {
    /// What the client asks for.
    pub version: ProtocolVersion,
    /// Every parameter in order, `_pq_.` options included. A name that is sent twice stays twice.
    pub params: Vec<Param>,
}

impl StartupMessage {
    /// A message with the given parameters.
    pub fn new<N: Into<Vec<u8>>, V: Into<Vec<u8>>>(
        version: ProtocolVersion,
        params: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let params = params
            .into_iter()
            .map(|(name, value)| Param { name: name.into(), value: value.into() })
            .collect();
        Self { version, params }
    }

    /// The value of a parameter; of two with the same name the last, as in the server.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.params.iter().rev().find(|p| p.name == name.as_bytes()).map(|p| p.value.as_slice())
    }

    /// As [`Self::get`], when the value is UTF-8.
    #[must_use]
    pub fn get_str(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|v| std::str::from_utf8(v).ok())
    }

    /// Sets a parameter: replaces the value where the name was sent, else appends.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        let value = value.into();
        match self.params.iter_mut().rev().find(|p| p.name == name.as_bytes()) {
            Some(param) => param.value = value,
            None => self.params.push(Param { name: name.into(), value }),
        }
    }

    /// Removes every parameter of that name.
    pub fn remove(&mut self, name: &str) {
        self.params.retain(|p| p.name != name.as_bytes());
    }

    /// Names of the protocol options (`_pq_.` prefix) asked for, in order.
    pub fn protocol_options(&self) -> impl Iterator<Item = &[u8]> {
        self.params.iter().map(|p| p.name.as_slice()).filter(|n| n.starts_with(PROTOCOL_OPTION))
    }

    /// The user name as bytes; a server refuses an empty or missing one with 28000.
    #[must_use]
    pub fn user(&self) -> Option<&[u8]> {
        self.get("user").filter(|v| !v.is_empty())
    }

    /// The database asked for: the parameter, or else the user's name, as the server chooses.
    #[must_use]
    pub fn database(&self) -> Option<&[u8]> {
        self.get("database").filter(|v| !v.is_empty()).or_else(|| self.user())
    }

    /// Whether a walsender is asked for: `replication` is `database`, or what the server's `parse_bool`
    /// (`src/backend/utils/adt/bool.c`) takes for true.
    #[must_use]
    pub fn is_replication(&self) -> bool {
        let Some(value) = self.get("replication") else { return false };
        let begins = |word: &[u8]| {
            !value.is_empty() && word.get(..value.len()).is_some_and(|part| part.eq_ignore_ascii_case(value))
        };
        value == b"database"
            || begins(b"true")
            || begins(b"yes")
            || value == b"1"
            || value.eq_ignore_ascii_case(b"on")
    }

    /// The packet with its length field. A zero byte inside a name or value cannot be sent and ends it there.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 4];
        out.extend_from_slice(&self.version.0.to_be_bytes());
        for param in &self.params {
            for part in [&param.name, &param.value] {
                out.extend(part.iter().copied().take_while(|b| *b != 0));
                out.push(0);
            }
        }
        out.push(0);
        finish(out)
    }
}

/// A client's first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstPacket {
    /// The client wants TLS; answer one byte, `S` or `N`.
    Ssl,
    /// The client wants GSSAPI encryption; answer one byte, `G` or `N`.
    GssEnc,
    /// The client wants a query cancelled; answer nothing and close.
    Cancel(CancelKey),
    /// The client wants a session.
    Startup(StartupMessage),
}

/// Whole length in bytes of the first packet at the start of `buf`; `None` when fewer than four bytes are there.
///
/// # Errors
/// [`StartupError::InvalidLength`], before anything is allocated.
pub fn peek_len(buf: &[u8]) -> Result<Option<usize>, StartupError> {
    let Some((len, _)) = buf.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes(*len);
    if !(8..=MAX_STARTUP_PACKET as u32 + 4).contains(&len) {
        return Err(StartupError::InvalidLength(len));
    }
    Ok(Some(len as usize))
}

/// Reads a complete first packet (its length field included; bytes after its length are ignored).
///
/// # Errors
/// [`StartupError`]; an incomplete packet is an invalid length.
pub fn parse(buf: &[u8]) -> Result<FirstPacket, StartupError> {
    let short = || StartupError::InvalidLength(u32::try_from(buf.len()).unwrap_or(u32::MAX));
    let len = peek_len(buf)?.ok_or_else(short)?;
    let packet = buf.get(4..len).ok_or_else(short)?;
    let (code, rest) = packet.split_first_chunk::<4>().ok_or_else(short)?;
    match u32::from_be_bytes(*code) {
        SSL_REQUEST => Ok(FirstPacket::Ssl),
        GSSENC_REQUEST => Ok(FirstPacket::GssEnc),
        CANCEL_REQUEST => {
            let (pid, secret) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            Ok(FirstPacket::Cancel(CancelKey::new(i32::from_be_bytes(*pid), secret)?))
        }
        version => {
            let version = ProtocolVersion(version);
            if version.major() != 3 {
                return Err(StartupError::UnsupportedVersion(version));
            }
            Ok(FirstPacket::Startup(StartupMessage { version, params: parse_params(rest)? }))
        }
    }
}

fn parse_params(mut rest: &[u8]) -> Result<Vec<Param>, StartupError> {
    let mut params = Vec::new();
    loop {
        let name = cstr(&mut rest)?;
        if name.is_empty() {
            break;
        }
        params.push(Param { name: name.to_vec(), value: cstr(&mut rest)?.to_vec() });
    }
    if rest.is_empty() { Ok(params) } else { Err(StartupError::InvalidLayout) }
}

fn cstr<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], StartupError> {
    let end = memchr::memchr(0, rest).ok_or(StartupError::InvalidLayout)?;
    let (text, tail) = rest.split_at(end);
    *rest = tail.get(1..).unwrap_or_default();
    Ok(text)
}

/// The CancelRequest packet for a key.
#[must_use]
pub fn encode_cancel(key: &CancelKey) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend_from_slice(&CANCEL_REQUEST.to_be_bytes());
    out.extend_from_slice(&key.pid().to_be_bytes());
    out.extend_from_slice(key.secret());
    finish(out)
}

/// Writes the length of the packet into its first four bytes.
fn finish(mut out: Vec<u8>) -> Vec<u8> {
    let len = u32::try_from(out.len()).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(field) = out.first_chunk_mut::<4>() {
        *field = len;
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fixed_packets() {
        assert_eq!(parse(&SSL_REQUEST_PACKET), Ok(FirstPacket::Ssl));
        assert_eq!(parse(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30]), Ok(FirstPacket::GssEnc));
        let key = CancelKey::new(0x0102_0304, b"wxyz").unwrap();
        let packet = encode_cancel(&key);
        assert_eq!(packet, b"\0\0\0\x10\x04\xd2\x16\x2e\x01\x02\x03\x04wxyz");
        assert_eq!(parse(&packet), Ok(FirstPacket::Cancel(key)));
    }

    #[test]
    fn startup_as_libpq_sends_it() {
        let packet =
            b"\0\0\0\x2d\0\x03\0\0user\0app\0database\0shop\0user\0late\0\0\0".split_at(0x2a).0.to_vec();
        let packet = finish(packet);
        let FirstPacket::Startup(message) = parse(&packet).unwrap() else { panic!("not a startup") };
        assert_eq!(message.version, ProtocolVersion::V3_0);
        assert_eq!(message.get_str("database"), Some("shop"));
        assert_eq!(message.user(), Some(&b"late"[..]));
        assert_eq!(message.encode(), packet);
    }

    #[test]
    fn malformed_packets_are_refused() {
        let table: &[(&[u8], StartupError)] = &[
            (b"\0\0\0\x04", StartupError::InvalidLength(4)),
            (b"\0\x01\0\0abcd", StartupError::InvalidLength(65536)),
            (b"\0\0\0\x09\0\x03\0\0", StartupError::InvalidLength(8)),
            (b"\0\0\0\x08\0\x03\0\0", StartupError::InvalidLayout),
            (b"\0\0\0\x0a\0\x03\0\0\0x", StartupError::InvalidLayout),
            (b"\0\0\0\x0c\0\x03\0\0user", StartupError::InvalidLayout),
            (b"\0\0\0\x09\0\x02\0\0\0", StartupError::UnsupportedVersion(ProtocolVersion(2 << 16))),
            (b"\0\0\0\x0f\x04\xd2\x16\x2e\0\0\0\x01abc", StartupError::CancelKey(SecretLength(3))),
        ];
        for (packet, want) in table {
            assert_eq!(parse(packet).as_ref(), Err(want), "{packet:?}");
        }
    }

    #[test]
    fn database_defaults_to_the_user() {
        let mut message = StartupMessage::new(ProtocolVersion::V3_2, [("user", "app")]);
        assert_eq!(message.database(), Some(&b"app"[..]));
        message.set("database", "shop");
        message.set("_pq_.x", "1");
        assert_eq!(message.database(), Some(&b"shop"[..]));
        assert_eq!(message.protocol_options().collect::<Vec<_>>(), [b"_pq_.x"]);
        message.remove("_pq_.x");
        assert_eq!(message.params.len(), 2);
    }

    #[test]
    fn names_need_not_be_utf_8() {
        let message = StartupMessage::new(ProtocolVersion::V3_0, [(&b"x.\xe4"[..], &b"\xff"[..])]);
        assert_eq!(parse(&message.encode()), Ok(FirstPacket::Startup(message)));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
            let mut framed = vec![0, 0, 0, u8::try_from(bytes.len() + 8).unwrap(), 0, 3, 0, 0];
            framed.extend_from_slice(&bytes);
            let _ = parse(&framed);
        }

        #[test]
        fn what_is_encoded_is_read_back(
            params in proptest::collection::vec(("[a-z_.]{1,12}", "[^\0]{0,20}"), 0..8),
            minor in prop_oneof![Just(ProtocolVersion::V3_0), Just(ProtocolVersion::V3_2)],
        ) {
            let message = StartupMessage::new(minor, params);
            prop_assert_eq!(parse(&message.encode()), Ok(FirstPacket::Startup(message)));
        }
    }
}
