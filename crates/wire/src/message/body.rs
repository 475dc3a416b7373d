//! A cursor over the body of one message.
//! Owns reading integers and strings without panics; refuses to know which message it reads.

use super::MessageError;

/// Reads fields from front to back; every reader says which field it was after when the body is short.
#[derive(Debug, Clone)]
pub struct Body<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    /// A cursor at the start of `body`; `message` names it in errors.
    #[must_use]
    pub fn new(message: &'static str, body: &'a [u8]) -> Self {
        Self { message, rest: body }
    }

    fn short(&self, field: &'static str) -> MessageError {
        MessageError::Short { message: self.message, field }
    }

    /// An [`MessageError::Invalid`] for this message.
    #[must_use]
    pub fn invalid(&self, field: &'static str) -> MessageError {
        MessageError::Invalid { message: self.message, field }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], MessageError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.short(field))?;
        self.rest = rest;
        Ok(*head)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`MessageError::Short`].
    pub fn u8(&mut self, field: &'static str) -> Result<u8, MessageError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    /// A 16-bit integer.
    ///
    /// # Errors
    /// [`MessageError::Short`].
    pub fn i16(&mut self, field: &'static str) -> Result<i16, MessageError> {
        Ok(i16::from_be_bytes(self.array(field)?))
    }

    /// A 32-bit integer.
    ///
    /// # Errors
    /// [`MessageError::Short`].
    pub fn i32(&mut self, field: &'static str) -> Result<i32, MessageError> {
        Ok(i32::from_be_bytes(self.array(field)?))
    }

    /// A 32-bit unsigned integer.
    ///
    /// # Errors
    /// [`MessageError::Short`].
    pub fn u32(&mut self, field: &'static str) -> Result<u32, MessageError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    /// `len` bytes.
    ///
    /// # Errors
    /// [`MessageError::Short`].
    pub fn bytes(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], MessageError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.short(field))?;
        self.rest = rest;
        Ok(head)
    }

    /// A zero-terminated string, without its zero.
    ///
    /// # Errors
    /// [`MessageError::Short`] when no zero byte follows.
    pub fn cstr(&mut self, field: &'static str) -> Result<&'a [u8], MessageError> {
        let end = memchr::memchr(0, self.rest).ok_or_else(|| self.short(field))?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        Ok(text)
    }

    /// Everything not read yet.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`MessageError::Trailing`].
    pub fn end(&self) -> Result<(), MessageError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(MessageError::Trailing { message: self.message, extra }),
        }
    }
}
