//! What clients send: queries, the parts of the extended protocol that name things, logins, COPY data.
//! Owns their bytes; refuses to know SQL and parameter values.

use super::body::Body;
use super::{MessageError, put, put_cstr, tag::front};
use bytes::{BufMut as _, BytesMut};

/// What Describe and Close name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A prepared statement; the empty name is the unnamed one.
    Statement(&'a [u8]),
    /// A portal; the empty name is the unnamed one.
    Portal(&'a [u8]),
}

/// One message of a client, borrowed from its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frontend<'a> {
    /// Query.
    Query(&'a [u8]),
    /// Parse.
    Parse {
        /// Statement to make.
        name: &'a [u8],
        /// Its text.
        sql: &'a [u8],
        /// How many parameter types are given; their OIDs follow in the message.
        types: i16,
    },
    /// Bind: only the names; formats and values stay unread.
    Bind {
        /// Portal to make.
        portal: &'a [u8],
        /// Statement it is made from.
        statement: &'a [u8],
    },
    /// Describe.
    Describe(Target<'a>),
    /// Close.
    Close(Target<'a>),
    /// Execute.
    Execute {
        /// Portal to run.
        portal: &'a [u8],
        /// Rows to return at most; 0 is no limit.
        max_rows: i32,
    },
    /// Flush.
    Flush,
    /// Sync.
    Sync,
    /// Terminate.
    Terminate,
    /// PasswordMessage or any SASL or GSS response: only the login knows which, so the body stays whole.
    Password(&'a [u8]),
    /// CopyData.
    CopyData(&'a [u8]),
    /// CopyDone.
    CopyDone,
    /// CopyFail.
    CopyFail(&'a [u8]),
    /// FunctionCall.
    FunctionCall {
        /// OID of the function.
        function: u32,
    },
    /// A tag that no client message has.
    Unknown(u8),
}

type Reader<'a> = fn(&mut Body<'a>) -> Result<Frontend<'a>, MessageError>;

impl<'a> Frontend<'a> {
    /// Reads a client's message.
    ///
    /// # Errors
    /// [`MessageError`] when the body does not fit the tag.
    pub fn parse(tag: u8, body: &'a [u8]) -> Result<Self, MessageError> {
        let (name, read): (&'static str, Reader<'a>) = match tag {
            front::QUERY => ("Query", |b| Ok(Self::Query(b.cstr("text")?))),
            front::PARSE => ("Parse", read_parse),
            front::BIND => ("Bind", |b| {
                let parsed = Self::Bind { portal: b.cstr("portal")?, statement: b.cstr("statement")? };
                b.rest();
                Ok(parsed)
            }),
            front::DESCRIBE => ("Describe", |b| Ok(Self::Describe(read_target(b)?))),
            front::CLOSE => ("Close", |b| Ok(Self::Close(read_target(b)?))),
            front::EXECUTE => ("Execute", |b| {
                Ok(Self::Execute { portal: b.cstr("portal")?, max_rows: b.i32("row limit")? })
            }),
            front::FLUSH => ("Flush", |_| Ok(Self::Flush)),
            front::SYNC => ("Sync", |_| Ok(Self::Sync)),
            front::TERMINATE => ("Terminate", |_| Ok(Self::Terminate)),
            front::PASSWORD => ("PasswordMessage", |b| Ok(Self::Password(b.rest()))),
            front::COPY_DATA => ("CopyData", |b| Ok(Self::CopyData(b.rest()))),
            front::COPY_DONE => ("CopyDone", |_| Ok(Self::CopyDone)),
            front::COPY_FAIL => ("CopyFail", |b| Ok(Self::CopyFail(b.cstr("reason")?))),
            front::FUNCTION_CALL => ("FunctionCall", |b| {
                let parsed = Self::FunctionCall { function: b.u32("function")? };
                b.rest();
                Ok(parsed)
            }),
            tag => return Ok(Self::Unknown(tag)),
        };
        let mut body = Body::new(name, body);
        let message = read(&mut body)?;
        body.end()?;
        Ok(message)
    }
}

fn read_parse<'a>(body: &mut Body<'a>) -> Result<Frontend<'a>, MessageError> {
    let (name, sql) = (body.cstr("statement")?, body.cstr("text")?);
    let types = body.i16("type count")?;
    let bytes = usize::try_from(types).map_err(|_| body.invalid("type count"))? * 4;
    body.bytes(bytes, "types")?;
    Ok(Frontend::Parse { name, sql, types })
}

fn read_target<'a>(body: &mut Body<'a>) -> Result<Target<'a>, MessageError> {
    match body.u8("kind")? {
        b'S' => Ok(Target::Statement(body.cstr("name")?)),
        b'P' => Ok(Target::Portal(body.cstr("name")?)),
        _ => Err(body.invalid("kind")),
    }
}

/// A SASLInitialResponse: the mechanism the client chose and its first message.
///
/// # Errors
/// [`MessageError`]; a mechanism that is not UTF-8 is invalid.
pub fn parse_sasl_initial(body: &[u8]) -> Result<(&str, Option<&[u8]>), MessageError> {
    let mut body = Body::new("SASLInitialResponse", body);
    let mechanism = std::str::from_utf8(body.cstr("mechanism")?).map_err(|_| body.invalid("mechanism"))?;
    let data = match body.i32("response length")? {
        -1 => None,
        len => {
            let len = usize::try_from(len).map_err(|_| body.invalid("response length"))?;
            Some(body.bytes(len, "response")?)
        }
    };
    body.end()?;
    Ok((mechanism, data))
}

/// A PasswordMessage: the password or md5 answer without its zero.
///
/// # Errors
/// [`MessageError`].
pub fn parse_password(body: &[u8]) -> Result<&[u8], MessageError> {
    let mut body = Body::new("PasswordMessage", body);
    let password = body.cstr("password")?;
    body.end()?;
    Ok(password)
}

/// Appends Query.
pub fn put_query(out: &mut BytesMut, sql: &str) {
    put(out, front::QUERY, |out| put_cstr(out, sql.as_bytes()));
}

/// Appends Parse without parameter types.
pub fn put_parse(out: &mut BytesMut, name: &[u8], sql: &[u8]) {
    put(out, front::PARSE, |out| {
        put_cstr(out, name);
        put_cstr(out, sql);
        out.put_i16(0);
    });
}

/// Appends Bind of the unnamed portal with text parameters and text results; `None` is NULL.
pub fn put_bind<V: AsRef<[u8]>>(out: &mut BytesMut, statement: &[u8], values: &[Option<V>]) {
    put(out, front::BIND, |out| {
        put_cstr(out, b"");
        put_cstr(out, statement);
        out.put_i16(0);
        out.put_i16(i16::try_from(values.len()).unwrap_or(i16::MAX));
        for value in values.iter().take(i16::MAX as usize) {
            match value.as_ref().map(AsRef::as_ref) {
                Some(value) => {
                    out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
                    out.put_slice(value);
                }
                None => out.put_i32(-1),
            }
        }
        out.put_i16(0);
    });
}

/// Appends Execute of the unnamed portal without a row limit.
pub fn put_execute(out: &mut BytesMut) {
    put(out, front::EXECUTE, |out| {
        put_cstr(out, b"");
        out.put_i32(0);
    });
}

/// Appends Sync.
pub fn put_sync(out: &mut BytesMut) {
    put(out, front::SYNC, |_| {});
}

/// Appends Terminate.
pub fn put_terminate(out: &mut BytesMut) {
    put(out, front::TERMINATE, |_| {});
}

/// Appends PasswordMessage.
pub fn put_password(out: &mut BytesMut, password: &[u8]) {
    put(out, front::PASSWORD, |out| put_cstr(out, password));
}

/// Appends SASLInitialResponse.
pub fn put_sasl_initial(out: &mut BytesMut, mechanism: &str, data: &[u8]) {
    put(out, front::PASSWORD, |out| {
        put_cstr(out, mechanism.as_bytes());
        out.put_i32(i32::try_from(data.len()).unwrap_or(i32::MAX));
        out.put_slice(data);
    });
}

/// Appends SASLResponse.
pub fn put_sasl_response(out: &mut BytesMut, data: &[u8]) {
    put(out, front::PASSWORD, |out| out.put_slice(data));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_by_tag() {
        let table: &[(u8, &[u8], Frontend<'_>)] = &[
            (b'Q', b"select 1\0", Frontend::Query(b"select 1")),
            (
                b'P',
                b"s\0select $1\0\0\x01\0\0\0\x17",
                Frontend::Parse { name: b"s", sql: b"select $1", types: 1 },
            ),
            (b'B', b"p\0s\0\0\0\0\0\0\0", Frontend::Bind { portal: b"p", statement: b"s" }),
            (b'D', b"Ss\0", Frontend::Describe(Target::Statement(b"s"))),
            (b'C', b"P\0", Frontend::Close(Target::Portal(b""))),
            (b'E', b"\0\0\0\0\x0a", Frontend::Execute { portal: b"", max_rows: 10 }),
            (b'H', b"", Frontend::Flush),
            (b'S', b"", Frontend::Sync),
            (b'X', b"", Frontend::Terminate),
            (b'p', b"secret\0", Frontend::Password(b"secret\0")),
            (b'd', b"1\t2\n", Frontend::CopyData(b"1\t2\n")),
            (b'c', b"", Frontend::CopyDone),
            (b'f', b"why\0", Frontend::CopyFail(b"why")),
            (b'F', b"\0\0\0\x07\0\0\0\0\0\0", Frontend::FunctionCall { function: 7 }),
            (b'?', b"x", Frontend::Unknown(b'?')),
        ];
        for (tag, body, want) in table {
            assert_eq!(Frontend::parse(*tag, body).as_ref(), Ok(want), "{}", char::from(*tag));
        }
    }

    #[test]
    fn malformed_bodies_are_refused() {
        let table: &[(u8, &[u8])] = &[
            (b'Q', b"select 1"),
            (b'P', b"s\0x\0\0\x02\0\0\0\x17"),
            (b'P', b"s\0x\0\xff\xff"),
            (b'D', b"Xs\0"),
            (b'E', b"\0\0\0"),
            (b'S', b"x"),
        ];
        for (tag, body) in table {
            assert!(Frontend::parse(*tag, body).is_err(), "{} {body:?}", char::from(*tag));
        }
    }

    #[test]
    fn sasl_initial_reads_back() {
        let mut out = BytesMut::new();
        put_sasl_initial(&mut out, "SCRAM-SHA-256", b"n,,n=,r=x");
        assert_eq!(parse_sasl_initial(&out[5..]).unwrap(), ("SCRAM-SHA-256", Some(&b"n,,n=,r=x"[..])));
        assert_eq!(parse_sasl_initial(b"X\0\xff\xff\xff\xff").unwrap(), ("X", None));
        assert!(parse_sasl_initial(b"X\0\0\0\0\x05ab").is_err());
        assert_eq!(parse_password(b"pw\0"), Ok(&b"pw"[..]));
        assert!(parse_password(b"pw\0x").is_err());
    }

    proptest! {
        #[test]
        fn random_bodies_never_panic(tag: u8, body in proptest::collection::vec(any::<u8>(), 0..48)) {
            let _ = Frontend::parse(tag, &body);
            let _ = parse_sasl_initial(&body);
            let _ = parse_password(&body);
            let _ = super::super::authentication::Authentication::parse(&body);
            let _ = super::super::backend::parse_ready_for_query(&body);
            let _ = super::super::backend::ParameterStatus::parse(&body);
            let _ = super::super::backend::parse_backend_key_data(&body);
            let _ = super::super::backend::NegotiateProtocolVersion::parse(&body);
            let _ = super::super::copy::CopyResponse::parse(&body);
            let _ = super::super::report::Fields::parse(&body);
            let _ = super::super::rows::parse_data_row(&body);
            let _ = super::super::rows::parse_row_description(&body);
            let _ = super::super::rows::parse_command_complete(&body);
        }
    }
}
