//! ErrorResponse and NoticeResponse: fields by code, and a builder for reports of our own.
//! Owns their bytes; refuses to know which SQLSTATE fits which fact.
//!
//! Source: PostgreSQL documentation, "Error and Notice Message Fields".

use super::body::Body;
use super::{MessageError, put, put_cstr, tag::back};
use bytes::{BufMut as _, BytesMut};

/// Field codes used here; the protocol has more.
pub mod field {
    /// Severity, translated.
    pub const SEVERITY: u8 = b'S';
    /// Severity, never translated.
    pub const SEVERITY_PLAIN: u8 = b'V';
    /// SQLSTATE.
    pub const SQLSTATE: u8 = b'C';
    /// Primary message.
    pub const MESSAGE: u8 = b'M';
    /// Detail.
    pub const DETAIL: u8 = b'D';
    /// Hint.
    pub const HINT: u8 = b'H';
    /// The function in the server's source that says it.
    pub const ROUTINE: u8 = b'R';
}

/// The fields of a report as the server sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fields<'a> {
    body: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Checks the layout of the body of an `E` or `N` message.
    ///
    /// # Errors
    /// [`MessageError`] when a field is not terminated or the final zero is missing.
    pub fn parse(body: &'a [u8]) -> Result<Self, MessageError> {
        let mut cursor = Body::new("ErrorResponse", body);
        while cursor.u8("field code")? != 0 {
            cursor.cstr("field value")?;
        }
        cursor.end()?;
        Ok(Self { body })
    }

    /// Every field in order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut cursor = Body::new("ErrorResponse", self.body);
        std::iter::from_fn(move || match cursor.u8("field code") {
            Ok(0) | Err(_) => None,
            Ok(code) => cursor.cstr("field value").ok().map(|value| (code, value)),
        })
    }

    /// The first field with that code.
    #[must_use]
    pub fn get(&self, code: u8) -> Option<&'a [u8]> {
        self.iter().find(|(c, _)| *c == code).map(|(_, value)| value)
    }

    /// The SQLSTATE, empty when the server sent none.
    #[must_use]
    pub fn sqlstate(&self) -> &'a str {
        self.text(field::SQLSTATE)
    }

    /// The primary message, empty when it is missing or not UTF-8.
    #[must_use]
    pub fn message(&self) -> &'a str {
        self.text(field::MESSAGE)
    }

    /// Whether the server closes the connection after this report.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(
            self.get(field::SEVERITY_PLAIN).or_else(|| self.get(field::SEVERITY)),
            Some(b"FATAL" | b"PANIC")
        )
    }

    fn text(&self, code: u8) -> &'a str {
        self.get(code).and_then(|v| std::str::from_utf8(v).ok()).unwrap_or_default()
    }
}

/// Severities of reports that pgteal makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The session ends.
    Fatal,
    /// The statement ends.
    Error,
    /// Nothing ends.
    Warning,
    /// For the user's information.
    Notice,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
        }
    }
}

/// A report of our own. FATAL and ERROR are sent as ErrorResponse, the others as NoticeResponse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    severity: Severity,
    sqlstate: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Report {
    /// A report with its obligatory fields.
    #[must_use]
    pub fn new(severity: Severity, sqlstate: &str, message: impl Into<String>) -> Self {
        Self { severity, sqlstate: sqlstate.to_owned(), message: message.into(), detail: None, hint: None }
    }

    /// A report that ends the session.
    #[must_use]
    pub fn fatal(sqlstate: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Fatal, sqlstate, message)
    }

    /// A report that ends the statement.
    #[must_use]
    pub fn error(sqlstate: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, sqlstate, message)
    }

    /// Adds a detail.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The SQLSTATE.
    #[must_use]
    pub fn sqlstate(&self) -> &str {
        &self.sqlstate
    }

    /// The primary message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Appends the message.
    pub fn encode(&self, out: &mut BytesMut) {
        let tag = match self.severity {
            Severity::Fatal | Severity::Error => back::ERROR,
            Severity::Warning | Severity::Notice => back::NOTICE,
        };
        put(out, tag, |out| {
            let severity = self.severity.as_str();
            let fields = [
                (field::SEVERITY, Some(severity)),
                (field::SEVERITY_PLAIN, Some(severity)),
                (field::SQLSTATE, Some(self.sqlstate.as_str())),
                (field::MESSAGE, Some(self.message.as_str())),
                (field::DETAIL, self.detail.as_deref()),
                (field::HINT, self.hint.as_deref()),
            ];
            for (code, value) in fields {
                if let Some(value) = value {
                    out.put_u8(code);
                    put_cstr(out, value.as_bytes());
                }
            }
            out.put_u8(0);
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_report_reads_back() {
        let mut out = BytesMut::new();
        Report::fatal("57P01", "terminating connection").detail("d").hint("h").encode(&mut out);
        assert_eq!(out[0], b'E');
        let fields = Fields::parse(&out[5..]).unwrap();
        assert_eq!((fields.sqlstate(), fields.message()), ("57P01", "terminating connection"));
        assert!(fields.is_fatal());
        assert_eq!(fields.iter().map(|(code, _)| code).collect::<Vec<_>>(), b"SVCMDH");
    }

    #[test]
    fn notices_have_their_own_tag() {
        let mut out = BytesMut::new();
        Report::new(Severity::Notice, "00000", "x").encode(&mut out);
        assert_eq!(out[0], b'N');
        assert!(!Fields::parse(&out[5..]).unwrap().is_fatal());
    }

    #[test]
    fn cut_reports_are_refused() {
        for body in [&b""[..], b"SERROR", b"SERROR\0", b"\0x"] {
            assert!(Fields::parse(body).is_err(), "{body:?}");
        }
    }
}
