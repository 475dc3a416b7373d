//! Where the verifiers of users come from, as the client's login sees it.
//! Owns the trait and the kinds of verifier; refuses to know SQL and servers.

use pgteal_wire::md5::Md5Verifier;
use pgteal_wire::scram::Verifier;

/// What a server stores for a user who may log in.
#[derive(Clone, Debug)]
pub enum StoredVerifier {
    /// SCRAM-SHA-256.
    Scram(Box<Verifier>),
    /// md5.
    Md5(Md5Verifier),
}

impl StoredVerifier {
    /// Reads `pg_authid.rolpassword`; `None` when it is neither kind.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Verifier::parse(text)
            .map(|verifier| Self::Scram(Box::new(verifier)))
            .or_else(|| Md5Verifier::parse(text).map(Self::Md5))
    }
}

/// The active side could not be asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("verifier of user \"{user}\": {reason}")]
pub struct LookupError {
    /// Whose verifier was wanted.
    pub user: String,
    /// What happened, with the last status.
    pub reason: String,
}

/// Finds verifiers.
pub trait VerifierLookup: Send + Sync {
    /// The verifier of a user; `None` when there is no such user, or one without a password, expired or not allowed to
    /// log in.
    fn verifier(
        &self,
        user: &[u8],
    ) -> impl Future<Output = Result<Option<StoredVerifier>, LookupError>> + Send;

    /// A login of this user failed, here or on a server: a remembered verifier is not to be believed any longer.
    fn login_failed(&self, user: &[u8]);
}

impl<L: VerifierLookup> VerifierLookup for std::sync::Arc<L> {
    fn verifier(
        &self,
        user: &[u8],
    ) -> impl Future<Output = Result<Option<StoredVerifier>, LookupError>> + Send {
        self.as_ref().verifier(user)
    }

    fn login_failed(&self, user: &[u8]) {
        self.as_ref().login_failed(user);
    }
}
