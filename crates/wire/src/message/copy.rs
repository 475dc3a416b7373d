//! CopyInResponse, CopyOutResponse and CopyBothResponse.
//! Owns their common body; refuses to know the data that follows.

use super::MessageError;
use super::body::Body;

/// The body that the three responses share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyResponse {
    /// Whether the overall format is binary.
    pub binary: bool,
    /// How many columns the data has.
    pub columns: i16,
}

impl CopyResponse {
    /// Reads the body of a `G`, `H` or `W` message from the server.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(body: &[u8]) -> Result<Self, MessageError> {
        let mut body = Body::new("CopyResponse", body);
        let binary = match body.u8("format")? {
            0 => false,
            1 => true,
            _ => return Err(body.invalid("format")),
        };
        let columns = body.i16("column count")?;
        for _ in 0..columns {
            body.i16("column format")?;
        }
        body.end()?;
        Ok(Self { binary, columns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_and_columns() {
        assert_eq!(
            CopyResponse::parse(b"\x01\0\x02\0\x01\0\x01"),
            Ok(CopyResponse { binary: true, columns: 2 })
        );
        assert!(CopyResponse::parse(b"\x02\0\0").is_err());
        assert!(CopyResponse::parse(b"\0\0\x02\0\0").is_err());
    }
}
