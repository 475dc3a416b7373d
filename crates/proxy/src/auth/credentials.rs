//! What a client's login leaves in memory so that the session can log in again on another server.
//! Owns keeping it wiped and hidden; refuses to know protocols.

use pgteal_wire::md5::Md5Verifier;
use pgteal_wire::scram::PassThrough;
use zeroize::Zeroizing;

/// Enough to log in to a server as the client's user. Wiped when dropped, never shown.
#[derive(Clone)]
pub enum Credentials {
    /// The client was trusted: only a server that trusts us as well lets the user in.
    None,
    /// A cleartext password.
    Password(Zeroizing<Vec<u8>>),
    /// An md5 verifier: answers md5 challenges only.
    Md5(Md5Verifier),
    /// ClientKey and verifier: answers SCRAM of servers that store the same verifier.
    Scram(Box<PassThrough>),
}

impl Credentials {
    /// A cleartext password.
    #[must_use]
    pub fn password(password: impl AsRef<[u8]>) -> Self {
        Self::Password(Zeroizing::new(password.as_ref().to_vec()))
    }

    /// What kind they are, fit to be shown.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::None => "no password",
            Self::Password(_) => "a password",
            Self::Md5(_) => "an md5 verifier",
            Self::Scram(_) => "SCRAM keys",
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.kind())
    }
}
