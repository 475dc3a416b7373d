//! The client's side of SCRAM: with a password, or with the keys of an earlier login.
//! Owns the proof and the check of the server's signature; refuses to know the connection.

use super::attributes::{Attributes, is_nonce};
use super::verifier::PassThrough;
use super::{
    DEFAULT_MAX_ITERATIONS, Key, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramError, TLS_SERVER_END_POINT, hmac,
    nonce, salted_password, sha256, xor,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// What the client says of channel binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientBinding {
    /// Not possible: no TLS.
    Unsupported,
    /// Possible, but the server did not offer SCRAM-SHA-256-PLUS; a server that did will notice.
    NotOffered,
    /// Bound to the server's certificate (RFC 5929, section 4).
    EndPoint(Vec<u8>),
}

impl ClientBinding {
    fn header(&self) -> String {
        match self {
            Self::Unsupported => "n,,".to_owned(),
            Self::NotOffered => "y,,".to_owned(),
            Self::EndPoint(_) => format!("p={TLS_SERVER_END_POINT},,"),
        }
    }
}

enum Secret {
    Password(Zeroizing<Vec<u8>>),
    Keys(Box<PassThrough>),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Password(..)",
            Self::Keys(_) => "Keys(..)",
        })
    }
}

#[derive(Debug)]
enum State {
    First,
    /// Awaiting server-final-message with this signature.
    Final(Key),
    Done,
}

/// One exchange with one server.
#[derive(Debug)]
pub struct ScramClient {
    secret: Secret,
    binding: ClientBinding,
    max_iterations: u32,
    nonce: String,
    state: State,
}

impl ScramClient {
    /// An exchange with a password.
    #[must_use]
    pub fn with_password(password: &[u8], binding: ClientBinding) -> Self {
        Self::new(Secret::Password(Zeroizing::new(password.to_vec())), binding)
    }

    /// An exchange with the keys of an earlier login.
    #[must_use]
    pub fn with_keys(keys: PassThrough, binding: ClientBinding) -> Self {
        Self::new(Secret::Keys(Box::new(keys)), binding)
    }

    fn new(secret: Secret, binding: ClientBinding) -> Self {
        Self { secret, binding, max_iterations: DEFAULT_MAX_ITERATIONS, nonce: nonce(), state: State::First }
    }

    /// Refuses servers that ask for more iterations; counts only with a password, for keys need none.
    #[must_use]
    pub fn max_iterations(mut self, limit: u32) -> Self {
        self.max_iterations = limit;
        self
    }

    #[cfg(test)]
    pub(super) fn with_nonce(mut self, nonce: &str) -> Self {
        nonce.clone_into(&mut self.nonce);
        self
    }

    /// The mechanism to choose.
    #[must_use]
    pub fn mechanism(&self) -> &'static str {
        match self.binding {
            ClientBinding::EndPoint(_) => SCRAM_SHA_256_PLUS,
            _ => SCRAM_SHA_256,
        }
    }

    fn first_bare(&self) -> String {
        // The user's name is empty, as libpq sends it: the startup packet has it.
        format!("n=,r={}", self.nonce)
    }

    /// client-first-message, the data of SASLInitialResponse.
    #[must_use]
    pub fn first(&self) -> Vec<u8> {
        format!("{}{}", self.binding.header(), self.first_bare()).into_bytes()
    }

    /// Reads server-first-message; gives client-final-message.
    ///
    /// # Errors
    /// [`ScramError`]; [`ScramError::VerifierDiffers`] when the keys at hand cannot fit this server.
    pub fn reply(&mut self, message: &[u8]) -> Result<Vec<u8>, ScramError> {
        if !matches!(self.state, State::First) {
            return Err(ScramError::OutOfOrder);
        }
        let mut attributes = Attributes::new(message)?;
        let nonce = attributes.value('r')?;
        let longer = nonce.strip_prefix(self.nonce.as_str()).is_some_and(|added| !added.is_empty());
        if !longer || !is_nonce(nonce) {
            return Err(ScramError::Nonce);
        }
        let salt = attributes.base64('s')?;
        let iterations: u32 = attributes
            .value('i')?
            .parse()
            .ok()
            .filter(|i| *i > 0)
            .ok_or(ScramError::Malformed("invalid iteration count"))?;
        attributes.end()?;
        let (client_key, server_key) = self.keys(&salt, iterations)?;
        let mut bound = self.binding.header().into_bytes();
        if let ClientBinding::EndPoint(data) = &self.binding {
            bound.extend_from_slice(data);
        }
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(bound));
        let bare = self.first_bare();
        let auth_message: [&[u8]; 5] = [bare.as_bytes(), b",", message, b",", without_proof.as_bytes()];
        let signature = hmac(&sha256(&client_key.0), &auth_message);
        let proof = STANDARD.encode(xor(&client_key.0, &signature));
        self.state = State::Final(Key(hmac(&server_key.0, &auth_message)));
        Ok(format!("{without_proof},p={proof}").into_bytes())
    }

    fn keys(&self, salt: &[u8], iterations: u32) -> Result<(Key, Key), ScramError> {
        match &self.secret {
            Secret::Password(password) => {
                if iterations > self.max_iterations {
                    return Err(ScramError::Iterations { iterations, limit: self.max_iterations });
                }
                let salted = salted_password(password, salt, iterations);
                let client_key = Key(hmac(&salted.0, &[b"Client Key"]));
                Ok((client_key, Key(hmac(&salted.0, &[b"Server Key"]))))
            }
            Secret::Keys(keys) => {
                if keys.verifier.salt != salt || keys.verifier.iterations != iterations {
                    return Err(ScramError::VerifierDiffers);
                }
                Ok((keys.client_key.clone(), keys.verifier.server_key.clone()))
            }
        }
    }

    /// Reads server-final-message and checks the server's signature.
    ///
    /// # Errors
    /// [`ScramError::WrongServerSignature`], or the server's own error.
    pub fn finish(&mut self, message: &[u8]) -> Result<(), ScramError> {
        let State::Final(expected) = &self.state else {
            return Err(ScramError::OutOfOrder);
        };
        let mut attributes = Attributes::new(message)?;
        if let Some(error) = std::str::from_utf8(message).ok().and_then(|m| m.strip_prefix("e=")) {
            return Err(ScramError::Server(error.to_owned()));
        }
        let signature = attributes.base64('v')?;
        attributes.end()?;
        if !bool::from(signature.ct_eq(&expected.0)) {
            return Err(ScramError::WrongServerSignature);
        }
        self.state = State::Done;
        Ok(())
    }

    /// Whether the server has proven that it knows the verifier. AuthenticationOk before that is not to be believed.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }
}
