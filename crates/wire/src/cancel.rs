//! Cancel keys: the pid and secret with which a client asks for its query to be cancelled.
//! Owns their form, minting and comparison; refuses to know which session a key belongs to.

use rand::Rng as _;
use subtle::ConstantTimeEq as _;

/// Shortest secret a key may have, in bytes (the only length before protocol 3.2).
pub const MIN_SECRET: usize = 4;
/// Longest secret a key may have, in bytes (protocol 3.2).
pub const MAX_SECRET: usize = 256;

/// The secret is shorter than 4 or longer than 256 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cancel secret has 4 to 256 bytes, not {0}")]
pub struct SecretLength(pub usize);

/// What BackendKeyData gives and CancelRequest repeats. Equality takes the same time wherever secrets differ.
#[derive(Clone)]
pub struct CancelKey {
    pid: i32,
    secret: Box<[u8]>,
}

impl CancelKey {
    /// A key as read from the wire.
    ///
    /// # Errors
    /// [`SecretLength`] outside 4..=256 bytes.
    pub fn new(pid: i32, secret: &[u8]) -> Result<Self, SecretLength> {
        if !(MIN_SECRET..=MAX_SECRET).contains(&secret.len()) {
            return Err(SecretLength(secret.len()));
        }
        Ok(Self { pid, secret: secret.into() })
    }

    /// A new random key. The pid is random and positive, because the client's pid must not tell which upstream it has.
    ///
    /// # Errors
    /// [`SecretLength`] outside 4..=256 bytes; protocol 3.0 clients take exactly 4.
    pub fn mint(secret_len: usize) -> Result<Self, SecretLength> {
        if !(MIN_SECRET..=MAX_SECRET).contains(&secret_len) {
            return Err(SecretLength(secret_len));
        }
        let mut rng = rand::rng();
        let pid = i32::try_from(rng.next_u32() >> 1).unwrap_or(1).max(1);
        let mut secret = vec![0; secret_len].into_boxed_slice();
        rng.fill_bytes(&mut secret);
        Ok(Self { pid, secret })
    }

    /// The process id half, fit to be a map key: it is not secret.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The secret half. Never log it.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        &self.secret
    }
}

impl PartialEq for CancelKey {
    fn eq(&self, other: &Self) -> bool {
        self.pid == other.pid && bool::from(self.secret.ct_eq(&other.secret))
    }
}

impl Eq for CancelKey {}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelKey").field("pid", &self.pid).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn lengths_are_those_of_the_protocol() {
        for (len, ok) in [(0, false), (3, false), (4, true), (32, true), (256, true), (257, false)] {
            assert_eq!(CancelKey::new(7, &vec![1; len]).is_ok(), ok, "{len}");
            assert_eq!(CancelKey::mint(len).is_ok(), ok, "{len}");
        }
    }

    #[test]
    fn debug_never_shows_the_secret() {
        let key = CancelKey::new(7, b"\xaa\xbb\xcc\xdd").unwrap();
        assert_eq!(format!("{key:?}"), "CancelKey { pid: 7, .. }");
    }

    #[test]
    fn keys_are_equal_by_pid_and_secret() {
        let key = CancelKey::new(7, b"abcd").unwrap();
        assert_eq!(key, CancelKey::new(7, b"abcd").unwrap());
        assert_ne!(key, CancelKey::new(8, b"abcd").unwrap());
        assert_ne!(key, CancelKey::new(7, b"abce").unwrap());
        assert_ne!(CancelKey::mint(4).unwrap(), CancelKey::mint(4).unwrap());
        assert!(CancelKey::mint(4).unwrap().pid() > 0);
    }
}
