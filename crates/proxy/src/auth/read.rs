//! Reading single messages during a login, byte for byte and never beyond, so that nothing is left over for the relay.
//! Owns the bounds of that; refuses to know what the messages say.

use std::io;

use pgteal_wire::frame;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Reads one typed message; gives its tag and body.
///
/// # Errors
/// The stream's, `UnexpectedEof` at its end, `InvalidData` when the message is over `limit` bytes.
pub(super) async fn message<R: AsyncRead + Unpin>(stream: &mut R, limit: usize) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; frame::HEADER_LEN];
    stream.read_exact(&mut head).await?;
    let header = frame::peek(&head, limit)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
        .ok_or(io::ErrorKind::InvalidData)?;
    let mut body = vec![0; header.body_len()];
    stream.read_exact(&mut body).await?;
    Ok((header.tag, body))
}
