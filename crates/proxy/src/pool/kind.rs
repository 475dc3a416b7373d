//! Owns what two clients have in common when one may take over the server connection of the other: they sent the very same
//! startup packet, and have proven by the very same verifier that they are its user.
//! Refuses to know connections.

use std::sync::{Arc, LazyLock};

use pgteal_wire::cancel::CancelKey;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::auth::Credentials;
use crate::route::Route;
use crate::session::Origin;

/// Known to this process only: without it a hash of a verifier could be compared with those of likely passwords.
static KEY: LazyLock<Zeroizing<Vec<u8>>> = LazyLock::new(|| {
    Zeroizing::new(CancelKey::mint(32).map(|key| key.secret().to_vec()).unwrap_or_default())
});

/// What a client has proven itself by, as a keyed hash that gives nothing away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proof([u8; 32]);

/// One kind of client.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(super) user: Arc<[u8]>,
    /// User, database, settings and protocol version, as the server was told them.
    pub(super) startup: Arc<[u8]>,
    pub(super) proof: Proof,
}

impl Kind {
    /// `None` for clients that share with nobody: a replication connection, a reader, and whose password only the server has
    /// seen.
    pub(crate) fn of(origin: &Origin) -> Option<Self> {
        if origin.is_replication() || origin.route == Route::Read {
            return None;
        }
        let proof = Proof::of(&origin.credentials)?;
        Some(Self { user: origin.user().into(), startup: origin.startup.encode().into(), proof })
    }
}

impl Proof {
    fn of(credentials: &Credentials) -> Option<Self> {
        let mut hash = Sha256::new();
        hash.update(KEY.as_slice());
        hash.update(credentials.kind());
        match credentials {
            // Believed, or by a certificate that names the user.
            Credentials::None => {}
            Credentials::Md5(verifier) => hash.update(Zeroizing::new(verifier.answer([0; 4]))),
            Credentials::Scram(keys) => hash.update(Zeroizing::new(keys.verifier().encode())),
            Credentials::Password(_) => return None,
        }
        Some(Self(hash.finalize().into()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use pgteal_wire::md5::Md5Verifier;
    use pgteal_wire::scram::{PassThrough, Verifier};
    use pgteal_wire::startup::{ProtocolVersion, StartupMessage};

    use super::*;

    fn kind(params: &[(&str, &str)], credentials: Credentials) -> Option<Kind> {
        let startup = StartupMessage::new(ProtocolVersion::V3_0, params.iter().copied());
        Kind::of(&Origin { startup, credentials, route: Route::Write })
    }

    fn scram(verifier: &Verifier) -> Credentials {
        Credentials::Scram(Box::new(PassThrough::from_password(b"app", b"secret", verifier).unwrap()))
    }

    fn md5(password: &[u8]) -> Credentials {
        Credentials::Md5(Md5Verifier::from_password(password, b"app"))
    }

    #[test]
    fn only_the_same_verifier_is_the_same_proof() {
        let (one, other) = (Verifier::generate(b"secret"), Verifier::generate(b"secret"));
        let proofs = [Credentials::None, scram(&one), scram(&other), md5(b"secret"), md5(b"changed")];
        let proofs: Vec<_> = proofs.into_iter().map(|credentials| Proof::of(&credentials).unwrap()).collect();
        for (n, proof) in proofs.iter().enumerate() {
            assert_eq!(proofs.iter().position(|other| other == proof), Some(n));
        }
        assert_eq!(Proof::of(&scram(&one)), Some(proofs[1]));
        assert_eq!(Proof::of(&md5(b"secret")), Some(proofs[3]));
    }

    #[test]
    fn readers_share_with_nobody() {
        let startup = StartupMessage::new(ProtocolVersion::V3_0, [("user", "app")]);
        let origin = |route| Origin { startup: startup.clone(), credentials: Credentials::None, route };
        assert!(Kind::of(&origin(Route::Write)).is_some());
        assert!(Kind::of(&origin(Route::Read)).is_none());
    }

    #[test]
    fn whom_only_the_server_has_judged_shares_with_nobody() {
        let app = [("user", "app"), ("database", "shop")];
        assert!(kind(&app, Credentials::None).is_some());
        assert!(kind(&app, Credentials::password("secret")).is_none());
        assert!(kind(&[("user", "app"), ("replication", "database")], Credentials::None).is_none());
    }
}
