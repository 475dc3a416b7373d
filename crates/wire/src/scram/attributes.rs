//! The text of SCRAM messages: comma-separated `letter=value` attributes in a fixed order.
//! Owns reading them strictly; refuses to know what they prove.

use super::ScramError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Reads attributes from front to back.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    rest: Option<&'a str>,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(message: &'a [u8]) -> Result<Self, ScramError> {
        if message.len() > super::MAX_MESSAGE {
            return Err(ScramError::Malformed("too long"));
        }
        let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed("not UTF-8"))?;
        if text.contains('\0') {
            return Err(ScramError::Malformed("zero byte"));
        }
        Ok(Self { rest: Some(text) })
    }

    /// The next part up to a comma.
    pub(super) fn part(&mut self) -> Result<&'a str, ScramError> {
        let rest = self.rest.ok_or(ScramError::Malformed("attribute missing"))?;
        match rest.split_once(',') {
            Some((part, tail)) => {
                self.rest = Some(tail);
                Ok(part)
            }
            None => {
                self.rest = None;
                Ok(rest)
            }
        }
    }

    /// The value of the next attribute, which must have this name.
    pub(super) fn value(&mut self, name: char) -> Result<&'a str, ScramError> {
        let part = self.part()?;
        part.strip_prefix(name)
            .and_then(|p| p.strip_prefix('='))
            .ok_or(ScramError::Malformed("unexpected attribute"))
    }

    /// The value of the next attribute in base64.
    pub(super) fn base64(&mut self, name: char) -> Result<Vec<u8>, ScramError> {
        STANDARD.decode(self.value(name)?).map_err(|_| ScramError::Malformed("invalid base64"))
    }

    /// What is left unread.
    pub(super) fn rest(&self) -> Option<&'a str> {
        self.rest
    }

    /// Reads extension attributes that may be ignored, up to the end.
    pub(super) fn end(&mut self) -> Result<(), ScramError> {
        while self.rest.is_some() {
            let part = self.part()?;
            let mut chars = part.chars();
            let named = chars.next().is_some_and(|c| c.is_ascii_alphabetic()) && chars.next() == Some('=');
            if !named {
                return Err(ScramError::Malformed("invalid extension"));
            }
        }
        Ok(())
    }
}

/// Printable ASCII without a comma, and not empty: what a nonce may hold.
pub(super) fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}
