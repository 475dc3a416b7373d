//! The server's side of SCRAM.
//! Owns checking a client's proof and recovering its ClientKey; refuses to know where the verifier came from.
//!
//! Strictness follows `src/backend/libpq/auth-scram.c`.

use super::attributes::{Attributes, is_nonce};
use super::verifier::{PassThrough, Verifier};
use super::{
    Key, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramError, TLS_SERVER_END_POINT, hmac, nonce, sha256, xor,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;

/// What the connection offers for channel binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerBinding {
    /// No TLS: SCRAM-SHA-256 alone.
    None,
    /// TLS: both mechanisms; the data is the hash of our certificate (RFC 5929, section 4).
    EndPoint(Vec<u8>),
}

/// A successful exchange.
#[derive(Debug)]
pub struct Verified {
    /// The data of AuthenticationSASLFinal.
    pub server_final: Vec<u8>,
    /// What lets the same user in elsewhere.
    pub keys: PassThrough,
}

#[derive(Debug)]
struct First {
    /// `client-first-message-bare,server-first-message,`
    auth_prefix: String,
    nonce: String,
    /// What the client must repeat in `c=`.
    binding: Vec<u8>,
}

/// One exchange with one client.
#[derive(Debug)]
pub struct ScramServer {
    user: Vec<u8>,
    verifier: Verifier,
    doomed: bool,
    offered: ServerBinding,
    server_nonce: String,
    first: Option<First>,
}

impl ScramServer {
    /// An exchange for a known user.
    #[must_use]
    pub fn new(user: &[u8], verifier: Verifier, offered: ServerBinding) -> Self {
        Self { user: user.to_vec(), verifier, doomed: false, offered, server_nonce: nonce(), first: None }
    }

    /// An exchange for a user who is not to get in: it looks the same and always ends with [`ScramError::WrongProof`].
    #[must_use]
    pub fn doomed(user: &[u8], server_secret: &[u8], offered: ServerBinding) -> Self {
        Self { doomed: true, ..Self::new(user, Verifier::mock(user, server_secret), offered) }
    }

    #[cfg(test)]
    fn with_nonce(mut self, nonce: &str) -> Self {
        nonce.clone_into(&mut self.server_nonce);
        self
    }

    /// The mechanisms to offer, best first.
    #[must_use]
    pub fn mechanisms(&self) -> &'static [&'static str] {
        match self.offered {
            ServerBinding::None => &[SCRAM_SHA_256],
            ServerBinding::EndPoint(_) => &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256],
        }
    }

    /// Reads client-first-message; gives server-first-message, the data of AuthenticationSASLContinue.
    ///
    /// # Errors
    /// [`ScramError`] for a mechanism not offered, a binding that does not fit, or a malformed message.
    pub fn first(&mut self, mechanism: &str, message: &[u8]) -> Result<Vec<u8>, ScramError> {
        if self.first.is_some() {
            return Err(ScramError::OutOfOrder);
        }
        if !self.mechanisms().contains(&mechanism) {
            return Err(ScramError::MechanismNotOffered);
        }
        let mut attributes = Attributes::new(message)?;
        let flag = attributes.part()?;
        let binding = self.check_flag(mechanism == SCRAM_SHA_256_PLUS, flag)?;
        if !attributes.part()?.is_empty() {
            return Err(ScramError::Malformed("authorization identity is not supported"));
        }
        let bare = attributes.rest().ok_or(ScramError::Malformed("attribute missing"))?;
        // An `m=` here would be a mandatory extension: `value` refuses it. The name is ignored, as PostgreSQL does: the
        // startup packet has told the user.
        attributes.value('n')?;
        let client_nonce = attributes.value('r')?;
        if !is_nonce(client_nonce) {
            return Err(ScramError::Malformed("nonce is not printable"));
        }
        attributes.end()?;
        let nonce = format!("{client_nonce}{}", self.server_nonce);
        let salt = STANDARD.encode(&self.verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", self.verifier.iterations);
        self.first = Some(First { auth_prefix: format!("{bare},{server_first},"), nonce, binding });
        Ok(server_first.into_bytes())
    }

    /// Checks the gs2 flag; gives what `c=` must carry.
    fn check_flag(&self, plus: bool, flag: &str) -> Result<Vec<u8>, ScramError> {
        match (flag, &self.offered) {
            ("n", _) if !plus => Ok(b"n,,".to_vec()),
            // The client could bind and believes that we cannot, but we offered it: somebody cut the list short.
            ("y", ServerBinding::EndPoint(_)) => {
                Err(ScramError::Binding("the client supports it but thinks the server does not"))
            }
            ("y", ServerBinding::None) if !plus => Ok(b"y,,".to_vec()),
            ("n" | "y", _) => Err(ScramError::Binding("the mechanism needs it")),
            (flag, offered) => {
                let kind = flag.strip_prefix("p=").ok_or(ScramError::Malformed("unexpected binding flag"))?;
                match offered {
                    _ if !plus => Err(ScramError::Binding("the mechanism is without it")),
                    ServerBinding::EndPoint(data) if kind == TLS_SERVER_END_POINT => {
                        let mut binding = format!("p={TLS_SERVER_END_POINT},,").into_bytes();
                        binding.extend_from_slice(data);
                        Ok(binding)
                    }
                    _ => Err(ScramError::Binding("unsupported type")),
                }
            }
        }
    }

    /// Reads client-final-message and checks the proof.
    ///
    /// # Errors
    /// [`ScramError::WrongProof`] for a wrong password or a doomed exchange; the others for a broken client.
    pub fn finish(self, message: &[u8]) -> Result<Verified, ScramError> {
        let first = self.first.ok_or(ScramError::OutOfOrder)?;
        let mut attributes = Attributes::new(message)?;
        let binding = attributes.base64('c')?;
        if attributes.value('r')? != first.nonce {
            return Err(ScramError::Nonce);
        }
        // Extensions may stand between the nonce and the proof, which is last.
        let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed("not UTF-8"))?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed("proof missing"))?;
        let proof: [u8; 32] = STANDARD
            .decode(proof)
            .ok()
            .and_then(|p| p.try_into().ok())
            .ok_or(ScramError::Malformed("invalid proof"))?;
        if !bool::from(binding.ct_eq(&first.binding)) {
            return Err(ScramError::Binding("check failed"));
        }
        let auth_message = [first.auth_prefix.as_bytes(), without_proof.as_bytes()];
        let signature = hmac(&self.verifier.stored_key.0, &auth_message);
        let client_key = Key(xor(&proof, &signature));
        let fits = bool::from(sha256(&client_key.0).ct_eq(&self.verifier.stored_key.0));
        if !fits || self.doomed {
            return Err(ScramError::WrongProof);
        }
        let server_signature = hmac(&self.verifier.server_key.0, &auth_message);
        let server_final = format!("v={}", STANDARD.encode(server_signature)).into_bytes();
        let keys = PassThrough::new(&self.user, self.verifier, client_key).ok_or(ScramError::WrongProof)?;
        Ok(Verified { server_final, keys })
    }
}

#[cfg(test)]
mod tests;
