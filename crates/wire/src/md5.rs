//! The md5 login: verifier, challenge, answer.
//! Owns the arithmetic; refuses to know where verifiers are kept.
//!
//! Source: PostgreSQL documentation, "AuthenticationMD5Password":
//! `'md5' || md5(md5(password || user) || salt)`, the inner digest in lower-case hex.

use md5::{Digest as _, Md5};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `rolpassword` of the old kind: `md5` and 32 hex digits. As good as the password itself, so it is wiped and hidden.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Md5Verifier {
    hex: [u8; 32],
}

impl std::fmt::Debug for Md5Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Md5Verifier(..)")
    }
}

fn hex(digest: &[u8]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0; 32];
    for (pair, byte) in out.chunks_exact_mut(2).zip(digest) {
        let nibbles = [byte >> 4, byte & 15];
        for (digit, nibble) in pair.iter_mut().zip(nibbles) {
            *digit = DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
        }
    }
    out
}

impl Md5Verifier {
    /// Reads `md5<32 hex digits>`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("md5")?.as_bytes();
        let hex: [u8; 32] = digits.try_into().ok()?;
        hex.iter().all(u8::is_ascii_hexdigit).then_some(Self { hex })
    }

    /// The verifier of a password for a user: the user's name is its salt.
    #[must_use]
    pub fn from_password(password: &[u8], user: &[u8]) -> Self {
        Self { hex: hex(&Md5::new().chain_update(password).chain_update(user).finalize()) }
    }

    /// What a client answers to a challenge with this salt.
    #[must_use]
    pub fn answer(&self, salt: [u8; 4]) -> Vec<u8> {
        let mut out = b"md5".to_vec();
        out.extend_from_slice(&hex(&Md5::new().chain_update(self.hex).chain_update(salt).finalize()));
        out
    }

    /// Checks an answer in constant time.
    #[must_use]
    pub fn accepts(&self, salt: [u8; 4], answer: &[u8]) -> bool {
        self.answer(salt).ct_eq(answer).into()
    }

    /// Whether a cleartext password belongs to this verifier, in constant time.
    #[must_use]
    pub fn accepts_password(&self, password: &[u8], user: &[u8]) -> bool {
        self.hex.ct_eq(&Self::from_password(password, user).hex).into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn agrees_with_the_reference_client() {
        for (user, password, salt) in [("md5_user", "password", [0x2a, 0x3d, 0x8f, 0xe0]), ("ü", "", [0; 4])]
        {
            let want =
                postgres_protocol::authentication::md5_hash(user.as_bytes(), password.as_bytes(), salt);
            let verifier = Md5Verifier::from_password(password.as_bytes(), user.as_bytes());
            assert_eq!(verifier.answer(salt), want.as_bytes());
            assert!(verifier.accepts(salt, want.as_bytes()));
            assert!(!verifier.accepts([9; 4], want.as_bytes()));
            assert!(verifier.accepts_password(password.as_bytes(), user.as_bytes()));
            assert!(!verifier.accepts_password(b"other", user.as_bytes()));
        }
    }

    #[test]
    fn reads_what_servers_store() {
        let stored = postgres_protocol::password::md5(b"password", "app");
        let verifier = Md5Verifier::parse(&stored).unwrap();
        assert!(verifier.accepts_password(b"password", b"app"));
        assert_eq!(format!("{verifier:?}"), "Md5Verifier(..)");
        for bad in ["", "md5", "md5zz", "SCRAM-SHA-256$4096:x$y:z", "md50123456789abcdef0123456789abcdeg"] {
            assert!(Md5Verifier::parse(bad).is_none(), "{bad}");
        }
    }
}
