//! What a server stores instead of a SCRAM password, and the keys of one successful login.
//! Owns the text form in `pg_authid.rolpassword`; refuses to know the exchange.

use super::{DEFAULT_ITERATIONS, Key, SALT_LEN, hmac, salted_password, sha256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::Rng as _;
use subtle::ConstantTimeEq as _;

/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`. Keys are wiped when dropped and never shown.
#[derive(Clone, Debug)]
pub struct Verifier {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
}

impl Verifier {
    /// Reads the text form; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (head, keys) = text.strip_prefix("SCRAM-SHA-256$")?.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text: &str| Some(Key(STANDARD.decode(text).ok()?.try_into().ok()?));
        if !iterations.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some(Self {
            iterations: iterations.parse().ok().filter(|i| *i > 0)?,
            salt: STANDARD.decode(salt).ok().filter(|s| !s.is_empty())?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// The text form: a secret, for only [`Self::parse`] or a server to read.
    #[must_use]
    pub fn encode(&self) -> String {
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(self.stored_key.0),
            STANDARD.encode(self.server_key.0)
        )
    }

    /// The verifier of a password; `iterations` of 0 counts as 1.
    #[must_use]
    pub fn from_password(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let salted = salted_password(password, salt, iterations.max(1));
        Self {
            iterations: iterations.max(1),
            salt: salt.to_vec(),
            stored_key: Key(sha256(&hmac(&salted.0, &[b"Client Key"]))),
            server_key: Key(hmac(&salted.0, &[b"Server Key"])),
        }
    }

    /// A new verifier with a random salt and PostgreSQL's default iterations.
    #[must_use]
    pub fn generate(password: &[u8]) -> Self {
        let mut salt = [0; SALT_LEN];
        rand::rng().fill_bytes(&mut salt);
        Self::from_password(password, &salt, DEFAULT_ITERATIONS)
    }

    /// A verifier for a user that does not exist: the salt is always the same for the same name and server secret, so
    /// that the exchange tells nothing (as `mock_scram_secret` does), and no password fits it.
    #[must_use]
    pub fn mock(user: &[u8], server_secret: &[u8]) -> Self {
        let salt = hmac(server_secret, &[b"pgteal mock salt", user]);
        let mut stored_key = [0; 32];
        let mut server_key = [0; 32];
        rand::rng().fill_bytes(&mut stored_key);
        rand::rng().fill_bytes(&mut server_key);
        Self {
            iterations: DEFAULT_ITERATIONS,
            salt: salt.get(..SALT_LEN).unwrap_or(&salt).to_vec(),
            stored_key: Key(stored_key),
            server_key: Key(server_key),
        }
    }

    /// Whether a cleartext password belongs to this verifier, in constant time.
    #[must_use]
    pub fn accepts_password(&self, password: &[u8]) -> bool {
        let other = Self::from_password(password, &self.salt, self.iterations);
        self.stored_key.0.ct_eq(&other.stored_key.0).into()
    }

    /// How many iterations a client must make.
    #[must_use]
    pub fn iterations(&self) -> u32 {
        self.iterations
    }
}

impl PartialEq for Verifier {
    fn eq(&self, other: &Self) -> bool {
        self.iterations == other.iterations
            && self.salt == other.salt
            && bool::from(self.stored_key.0.ct_eq(&other.stored_key.0))
            && bool::from(self.server_key.0.ct_eq(&other.server_key.0))
    }
}

impl Eq for Verifier {}

/// The keys of one login: ClientKey and the verifier it was proven against, for exactly one user. Enough to log in again
/// wherever that verifier is stored; wiped when dropped and never shown.
#[derive(Clone, Debug)]
pub struct PassThrough {
    pub(super) user: Vec<u8>,
    pub(super) verifier: Verifier,
    pub(super) client_key: Key,
}

impl PassThrough {
    /// The keys that a password gives for a verifier; `None` when it is the wrong password.
    #[must_use]
    pub fn from_password(user: &[u8], password: &[u8], verifier: &Verifier) -> Option<Self> {
        let salted = salted_password(password, &verifier.salt, verifier.iterations);
        let client_key = Key(hmac(&salted.0, &[b"Client Key"]));
        Self::new(user, verifier.clone(), client_key)
    }

    /// Binds a ClientKey to user and verifier; `None` when its hash is not the StoredKey.
    pub(super) fn new(user: &[u8], verifier: Verifier, client_key: Key) -> Option<Self> {
        let fits = bool::from(sha256(&client_key.0).ct_eq(&verifier.stored_key.0));
        fits.then(|| Self { user: user.to_vec(), verifier, client_key })
    }

    /// The user these keys belong to.
    #[must_use]
    pub fn user(&self) -> &[u8] {
        &self.user
    }

    /// The verifier these keys were proven against.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    const STORED: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn vector_of_rfc_7677() {
        let verifier =
            Verifier::from_password(b"pencil", &STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(), 4096);
        assert_eq!(verifier.encode(), STORED);
        assert_eq!(Verifier::parse(STORED), Some(verifier));
    }

    #[test]
    fn the_password_fits_and_others_do_not() {
        let verifier = Verifier::parse(STORED).unwrap();
        assert!(verifier.accepts_password(b"pencil"));
        assert!(!verifier.accepts_password(b"pencils"));
        assert!(PassThrough::from_password(b"user", b"pencil", &verifier).is_some());
        assert!(PassThrough::from_password(b"user", b"pen", &verifier).is_none());
    }

    #[test]
    fn saslprep_as_the_reference_server_code() {
        // Non-breaking space becomes a space, U+FB01 splits; what SASLprep forbids stays as it is.
        for password in ["a\u{a0}b", "\u{fb01}", "\u{7}bell", "pa\u{ad}ss", "", "\u{5d0}1a"] {
            let stored = postgres_protocol::password::scram_sha_256(password.as_bytes());
            let verifier = Verifier::parse(&stored).unwrap();
            assert!(verifier.accepts_password(password.as_bytes()), "{password:?}");
        }
        let raw = [0xff, 0xfe, b'x'];
        let stored = postgres_protocol::password::scram_sha_256(&raw);
        assert!(Verifier::parse(&stored).unwrap().accepts_password(&raw));
    }

    #[test]
    fn other_texts_are_no_verifiers() {
        let broken = [
            "",
            "md5abc",
            "SCRAM-SHA-256",
            "SCRAM-SHA-256$0:eA==$eA==:eA==",
            "SCRAM-SHA-1$4096:eA==$x:y",
            "SCRAM-SHA-256$4096:eA==$eA==:eA==",
            "SCRAM-SHA-256$+1:eA==$eA==:eA==",
        ];
        for text in broken {
            assert!(Verifier::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn secrets_are_hidden() {
        let verifier = Verifier::parse(STORED).unwrap();
        let keys = PassThrough::from_password(b"user", b"pencil", &verifier).unwrap();
        let shown = format!("{keys:?}");
        assert!(shown.contains("client_key: Key(..)") && shown.contains("stored_key: Key(..)"), "{shown}");
    }

    #[test]
    fn unknown_users_keep_their_salt() {
        let (a, b) = (Verifier::mock(b"u", b"secret"), Verifier::mock(b"u", b"secret"));
        assert_eq!(a.salt, b.salt);
        assert_ne!(a.salt, Verifier::mock(b"v", b"secret").salt);
        assert_ne!(a.salt, Verifier::mock(b"u", b"other").salt);
        assert!(!a.accepts_password(b""));
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text in "(SCRAM-SHA-256\\$)?[0-9]{0,11}:?[A-Za-z0-9+/=$:]{0,120}") {
            let _ = Verifier::parse(&text);
        }
    }
}
