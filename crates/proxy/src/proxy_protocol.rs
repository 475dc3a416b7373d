//! Owns the PROXY protocol, version 2, in which a load balancer says whose connection it passes on, and the networks that it may
//! come from. Refuses to know what the client says afterwards.
//!
//! Source: "The PROXY protocol, Versions 1 & 2", sections 2.2 to 2.4 (haproxy.org).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Addresses and extensions taken, in bytes.
const MAX_REST: u16 = 4096;

/// Why a connection is closed without a word.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyProtocolError {
    /// The balancer went away.
    #[error("PROXY header: {0}")]
    Io(#[from] io::Error),
    /// Version 1, in text.
    #[error("PROXY header of version 1; only version 2 is taken")]
    Version1,
    /// Something else.
    #[error("no PROXY header: {0}")]
    Invalid(&'static str),
}

/// Reads the header and no byte more. `None`: the connection is the balancer's own (a health check), or it does not say whose it
/// is.
///
/// # Errors
/// [`ProxyProtocolError`].
pub async fn read<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Option<SocketAddr>, ProxyProtocolError> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).await?;
    let [signature @ .., version, family, high, low] = head;
    let len = u16::from_be_bytes([high, low]);
    if signature != *SIGNATURE {
        let is_text = signature.starts_with(b"PROXY ");
        return Err(if is_text {
            ProxyProtocolError::Version1
        } else {
            ProxyProtocolError::Invalid("wrong signature")
        });
    }
    if len > MAX_REST {
        return Err(ProxyProtocolError::Invalid("too long"));
    }
    let mut rest = vec![0; usize::from(len)];
    stream.read_exact(&mut rest).await?;
    match version {
        0x20 => Ok(None),
        0x21 => source(family, &rest),
        _ => Err(ProxyProtocolError::Invalid("neither LOCAL nor PROXY of version 2")),
    }
}

fn source(family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, ProxyProtocolError> {
    let short = || ProxyProtocolError::Invalid("too short for its addresses");
    let port = |at: usize| {
        let bytes: [u8; 2] = rest.get(at..at + 2)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    };
    // Source and target address, source and target port.
    match family {
        0x11 => {
            let ip: [u8; 4] = rest.get(..12).and_then(|all| all.first_chunk().copied()).ok_or_else(short)?;
            Ok(Some(SocketAddr::from((Ipv4Addr::from(ip), port(8).ok_or_else(short)?))))
        }
        0x21 => {
            let ip: [u8; 16] = rest.get(..36).and_then(|all| all.first_chunk().copied()).ok_or_else(short)?;
            Ok(Some(SocketAddr::from((Ipv6Addr::from(ip), port(32).ok_or_else(short)?))))
        }
        // Unspecified, or a Unix socket, whose path tells nothing here.
        0x00 | 0x31 => Ok(None),
        _ => Err(ProxyProtocolError::Invalid("no stream of a known family")),
    }
}

/// A network, as `10.0.0.0/8`; a mere address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    ip: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether the address is in it. An IPv4 address is the same when it comes by IPv6 (`::ffff:10.0.0.1`).
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                u32::from(net) & mask == u32::from(ip) & mask
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                u128::from(net) & mask == u128::from(ip) & mask
            }
            _ => false,
        }
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let failed = || format!("\"{text}\" is no network, such as 10.0.0.0/8");
        let (ip, bits) = text.split_once('/').map_or((text.as_str(), None), |(ip, bits)| (ip, Some(bits)));
        let ip: IpAddr = ip.parse().map_err(|_| failed())?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| failed())?;
        if bits > most { Err(failed()) } else { Ok(Self { ip, bits }) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn header(version: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let len = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version, family], &len, rest].concat()
    }

    #[tokio::test]
    async fn headers_are_read_to_their_last_byte() {
        let four = [10, 1, 2, 3, 10, 0, 0, 1, 0x30, 0x39, 0x15, 0x38];
        let mut six = [0; 36];
        (six[15], six[32], six[33]) = (1, 0, 80);
        let with_extension = [&four[..], &[4, 0, 3, b'a', b'b', b'c']].concat();
        type Want = Result<Option<&'static str>, &'static str>;
        let table: [(Vec<u8>, Want); 12] = [
            (header(0x21, 0x11, &four), Ok(Some("10.1.2.3:12345"))),
            (header(0x21, 0x11, &with_extension), Ok(Some("10.1.2.3:12345"))),
            (header(0x21, 0x21, &six), Ok(Some("[::1]:80"))),
            (header(0x20, 0x00, &[]), Ok(None)),
            (header(0x20, 0x11, &four), Ok(None)),
            (header(0x21, 0x00, &[1, 2, 3]), Ok(None)),
            (header(0x21, 0x31, &[0; 216]), Ok(None)),
            (header(0x21, 0x11, &four[..11]), Err("too short")),
            (header(0x21, 0x12, &four), Err("no stream")),
            (header(0x22, 0x11, &four), Err("neither LOCAL nor PROXY")),
            (header(0x21, 0x11, &[0; 5000]), Err("too long")),
            (b"PROXY TCP4 10.1.2.3 10.0.0.1 1 2\r\n".to_vec(), Err("version 1")),
        ];
        for (bytes, want) in table {
            let sent = [&bytes[..], b"Q"].concat();
            let mut stream = &sent[..];
            let got = read(&mut stream).await;
            match want {
                Ok(address) => {
                    assert_eq!(got.unwrap(), address.map(|text| text.parse().unwrap()), "{bytes:?}");
                    assert_eq!(stream, b"Q", "not a byte more");
                }
                Err(why) => assert!(got.unwrap_err().to_string().contains(why), "{bytes:?}"),
            }
        }
        assert!(read(&mut &b"\0\0\0\x08\x04\xd2\x16\x2f________"[..]).await.is_err());
    }

    #[test]
    fn networks_hold_what_they_say() {
        let network = |text: &str| Network::try_from(text.to_owned());
        let table = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("fd00::/8", "fd12::1", true),
            ("::/0", "fe80::1", true),
            ("::1", "::2", false),
        ];
        for (text, ip, want) in table {
            assert_eq!(network(text).unwrap().contains(ip.parse().unwrap()), want, "{text} {ip}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "host/8", "10.0.0.0/-1"] {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
