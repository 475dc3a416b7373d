//! Authentication requests of the server.
//! Owns their bytes; refuses to know passwords and proofs.

use super::body::Body;
use super::{MessageError, put, put_cstr, tag::back};
use bytes::{BufMut as _, BytesMut};

const NAME: &str = "Authentication";

/// One Authentication message, borrowed from its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// AuthenticationOk.
    Ok,
    /// AuthenticationCleartextPassword.
    Cleartext,
    /// AuthenticationMD5Password.
    Md5 {
        /// Salt of the challenge.
        salt: [u8; 4],
    },
    /// AuthenticationSASL: mechanism names in the server's order of preference.
    Sasl {
        /// For example `SCRAM-SHA-256-PLUS`, `SCRAM-SHA-256`.
        mechanisms: Vec<&'a str>,
    },
    /// AuthenticationSASLContinue: the server's challenge.
    SaslContinue(&'a [u8]),
    /// AuthenticationSASLFinal: the outcome with the server's own proof.
    SaslFinal(&'a [u8]),
    /// A request that pgteal does not answer: Kerberos (2), GSS (7, 8), SSPI (9), or one yet unknown.
    Unsupported(u32),
}

impl<'a> Authentication<'a> {
    /// Reads the body of an `R` message.
    ///
    /// # Errors
    /// [`MessageError`] when the body does not fit its code.
    pub fn parse(body: &'a [u8]) -> Result<Self, MessageError> {
        let mut body = Body::new(NAME, body);
        let message = match body.u32("code")? {
            0 => Self::Ok,
            3 => Self::Cleartext,
            5 => {
                let salt = body.bytes(4, "salt")?;
                Self::Md5 { salt: salt.try_into().map_err(|_| body.invalid("salt"))? }
            }
            10 => {
                let mut mechanisms = Vec::new();
                loop {
                    let name = body.cstr("mechanism")?;
                    if name.is_empty() {
                        break;
                    }
                    mechanisms.push(std::str::from_utf8(name).map_err(|_| body.invalid("mechanism"))?);
                }
                Self::Sasl { mechanisms }
            }
            11 => Self::SaslContinue(body.rest()),
            12 => Self::SaslFinal(body.rest()),
            code => {
                body.rest();
                Self::Unsupported(code)
            }
        };
        body.end()?;
        Ok(message)
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut BytesMut) {
        put(out, back::AUTHENTICATION, |out| match self {
            Self::Ok => out.put_u32(0),
            Self::Cleartext => out.put_u32(3),
            Self::Md5 { salt } => {
                out.put_u32(5);
                out.put_slice(salt);
            }
            Self::Sasl { mechanisms } => {
                out.put_u32(10);
                for name in mechanisms {
                    put_cstr(out, name.as_bytes());
                }
                out.put_u8(0);
            }
            Self::SaslContinue(data) => {
                out.put_u32(11);
                out.put_slice(data);
            }
            Self::SaslFinal(data) => {
                out.put_u32(12);
                out.put_slice(data);
            }
            Self::Unsupported(code) => out.put_u32(*code),
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn each_request_reads_back() {
        let table = [
            Authentication::Ok,
            Authentication::Cleartext,
            Authentication::Md5 { salt: *b"\x01\0\xff\x02" },
            Authentication::Sasl { mechanisms: vec!["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"] },
            Authentication::SaslContinue(b"r=x,s=eQ==,i=4096"),
            Authentication::SaslFinal(b"v=eQ=="),
            Authentication::Unsupported(7),
        ];
        for want in table {
            let mut out = BytesMut::new();
            want.encode(&mut out);
            assert_eq!(Authentication::parse(&out[5..]), Ok(want));
        }
    }

    #[test]
    fn cut_bodies_are_short() {
        for body in [&b"\0\0"[..], b"\0\0\0\x05abc", b"\0\0\0\x0aSCRAM", b"\0\0\0\x0aSCRAM\0"] {
            assert!(matches!(Authentication::parse(body), Err(MessageError::Short { .. })), "{body:?}");
        }
        assert!(matches!(Authentication::parse(b"\0\0\0\0x"), Err(MessageError::Trailing { extra: 1, .. })));
    }
}
