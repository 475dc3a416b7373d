//! Text results for consoles: RowDescription, DataRow, CommandComplete.
//! Owns their bytes; refuses to know types other than text.

use super::body::Body;
use super::{MessageError, put, put_cstr, tag::back};
use bytes::{BufMut as _, BytesMut};

/// The OID of `text`.
const TEXT_OID: u32 = 25;

/// Appends a RowDescription whose columns are all `text`.
pub fn put_row_description(out: &mut BytesMut, columns: &[&str]) {
    put(out, back::ROW_DESCRIPTION, |out| {
        out.put_i16(i16::try_from(columns.len()).unwrap_or(i16::MAX));
        for name in columns.iter().take(i16::MAX as usize) {
            put_cstr(out, name.as_bytes());
            out.put_u32(0); // no table
            out.put_i16(0); // no attribute number
            out.put_u32(TEXT_OID);
            out.put_i16(-1); // varlena
            out.put_i32(-1); // no modifier
            out.put_i16(0); // text format
        }
    });
}

/// Appends a DataRow; `None` is NULL.
pub fn put_data_row<V: AsRef<[u8]>>(out: &mut BytesMut, values: &[Option<V>]) {
    put(out, back::DATA_ROW, |out| {
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
    });
}

/// Appends CommandComplete with a tag such as `SHOW` or `SELECT 3`.
pub fn put_command_complete(out: &mut BytesMut, tag: &str) {
    put(out, back::COMMAND_COMPLETE, |out| put_cstr(out, tag.as_bytes()));
}

/// Appends EmptyQueryResponse.
pub fn put_empty_query(out: &mut BytesMut) {
    put(out, back::EMPTY_QUERY, |_| {});
}

/// Reads the tag of CommandComplete.
///
/// # Errors
/// [`MessageError`].
pub fn parse_command_complete(body: &[u8]) -> Result<&[u8], MessageError> {
    let mut body = Body::new("CommandComplete", body);
    let tag = body.cstr("tag")?;
    body.end()?;
    Ok(tag)
}

/// Reads the values of a DataRow; `None` is NULL.
///
/// # Errors
/// [`MessageError`].
pub fn parse_data_row(body: &[u8]) -> Result<Vec<Option<&[u8]>>, MessageError> {
    let mut body = Body::new("DataRow", body);
    let count = body.i16("column count")?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(match body.i32("value length")? {
            -1 => None,
            len => {
                let len = usize::try_from(len).map_err(|_| body.invalid("value length"))?;
                Some(body.bytes(len, "value")?)
            }
        });
    }
    body.end()?;
    Ok(values)
}

/// Reads the column names of a RowDescription.
///
/// # Errors
/// [`MessageError`].
pub fn parse_row_description(body: &[u8]) -> Result<Vec<&[u8]>, MessageError> {
    let mut body = Body::new("RowDescription", body);
    let count = body.i16("column count")?;
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(body.cstr("column name")?);
        body.bytes(18, "column")?;
    }
    body.end()?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_result_reads_back() {
        let mut out = BytesMut::new();
        put_row_description(&mut out, &["state", "epoch"]);
        assert_eq!(parse_row_description(&out[5..]).unwrap(), [&b"state"[..], b"epoch"]);
        out.clear();
        put_data_row(&mut out, &[Some("held"), None, Some("")]);
        assert_eq!(parse_data_row(&out[5..]).unwrap(), [Some(&b"held"[..]), None, Some(b"")]);
        out.clear();
        put_command_complete(&mut out, "SHOW");
        assert_eq!(parse_command_complete(&out[5..]).unwrap(), b"SHOW");
    }

    #[test]
    fn lengths_beyond_the_body_are_refused() {
        for body in [&b"\0\x01\0\0\0\x05ab"[..], b"\0\x01\xff\xff\xff\xfe", b"\0\x02\xff\xff\xff\xff"] {
            assert!(parse_data_row(body).is_err(), "{body:?}");
        }
    }
}
