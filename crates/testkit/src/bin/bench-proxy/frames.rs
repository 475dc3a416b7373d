//! As much of PostgreSQL's protocol 3.0 as idle sessions and their stand-in server need (PostgreSQL docs, "Message
//! Formats"). Owns lengths and tags; refuses to know what they mean.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt};

/// No message between the two is anywhere near.
const LONGEST: usize = 1 << 20;

/// Appends a message.
pub(crate) fn put(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&length(body));
    out.extend_from_slice(body);
}

/// A startup packet: version 3.0 and pairs of names and values.
pub(crate) fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for (name, value) in parameters {
        for text in [name, value] {
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
    }
    body.push(0);
    [&length(&body)[..], &body].concat()
}

/// One message: its tag and its body.
pub(crate) async fn message(stream: &mut (impl AsyncRead + Unpin)) -> Result<(u8, Vec<u8>)> {
    let tag = stream.read_u8().await?;
    Ok((tag, packet(stream).await?))
}

/// What comes before a session has tags: a length and a body.
pub(crate) async fn packet(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>> {
    let length = stream.read_u32().await? as usize;
    if !(4..=LONGEST).contains(&length) {
        return Err(Error::new(ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// The length of a message counts itself.
fn length(body: &[u8]) -> [u8; 4] {
    u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_put_is_read_again_and_nonsense_is_refused() {
        let mut out = Vec::new();
        put(&mut out, b'Q', b"SELECT 1\0");
        put(&mut out, b'X', b"");
        let mut rest = &out[..];
        assert_eq!(message(&mut rest).await.unwrap(), (b'Q', b"SELECT 1\0".to_vec()));
        assert_eq!(message(&mut rest).await.unwrap(), (b'X', Vec::new()));
        assert!(message(&mut rest).await.is_err());
        assert_eq!(startup(&[("user", "u")]), b"\0\0\0\x10\0\x03\0\0user\0u\0\0");
        for length in [3_u32, 1 << 24] {
            assert!(packet(&mut &length.to_be_bytes()[..]).await.is_err(), "{length}");
        }
    }
}
