//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, both sides (RFC 5802, RFC 7677, channel binding RFC 5929).
//! Owns verifiers, proofs and the keys that let one login be repeated elsewhere; refuses to know who logs in where.
//!
//! The server side recovers the client's ClientKey from its proof. Together with the verifier it was checked against
//! it is enough to log in, as the same user, to any server that stores the same verifier: no password is needed.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

mod attributes;
pub mod client;
pub mod server;
pub mod verifier;

pub use client::{ClientBinding, ScramClient};
pub use server::{ScramServer, ServerBinding};
pub use verifier::{PassThrough, Verifier};

/// The mechanism without channel binding.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// The mechanism with channel binding.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// The only channel binding type PostgreSQL knows (RFC 5929).
pub const TLS_SERVER_END_POINT: &str = "tls-server-end-point";
/// Iterations of new verifiers, PostgreSQL's own default (`SCRAM_SHA_256_DEFAULT_ITERATIONS`).
pub const DEFAULT_ITERATIONS: u32 = 4096;
/// Iterations a peer may ask for unless configured otherwise: about a second of one core.
pub const DEFAULT_MAX_ITERATIONS: u32 = 1_000_000;
/// Bytes of salt in new verifiers (`SCRAM_DEFAULT_SALT_LEN`).
pub const SALT_LEN: usize = 16;
/// Random bytes in a nonce before base64 (`SCRAM_RAW_NONCE_LEN`).
pub const RAW_NONCE_LEN: usize = 18;
/// Longest SCRAM message read, in bytes. Real ones stay below 300.
pub const MAX_MESSAGE: usize = 4096;

/// Why a SCRAM exchange ends without a login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message does not follow RFC 5802.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// A message came out of order.
    #[error("SCRAM message out of order")]
    OutOfOrder,
    /// The mechanism is not one that was offered.
    #[error("SASL mechanism was not offered")]
    MechanismNotOffered,
    /// The client's channel binding does not fit the mechanism or the connection.
    #[error("SCRAM channel binding: {0}")]
    Binding(&'static str),
    /// The nonce is not the one of this exchange.
    #[error("SCRAM nonce does not match")]
    Nonce,
    /// The client's proof is wrong, or the user was never to get in.
    #[error("SCRAM proof does not match")]
    WrongProof,
    /// The server's signature is wrong: it does not know the verifier.
    #[error("SCRAM server signature does not match")]
    WrongServerSignature,
    /// The server answered with an error attribute.
    #[error("SCRAM server error: {0}")]
    Server(String),
    /// More iterations than allowed, or none.
    #[error("SCRAM iteration count {iterations} is outside 1..={limit}")]
    Iterations {
        /// What was asked for.
        iterations: u32,
        /// The configured limit.
        limit: u32,
    },
    /// The server's salt or iterations are not those of the verifier whose keys are at hand: the stored passwords differ.
    #[error("the server's SCRAM verifier is not the one the client logged in with")]
    VerifierDiffers,
}

/// A 32-byte key that is wiped when dropped and never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Key(pub(crate) [u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// HMAC-SHA-256 over the concatenation of `parts`.
pub(crate) fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length: the error of the constructor cannot happen, and a key of zeros would fail closed.
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| Hmac::<Sha256>::new(&Default::default()));
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub(crate) fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    let mut out = *a;
    for (x, y) in out.iter_mut().zip(b) {
        *x ^= y;
    }
    out
}

/// SaltedPassword of RFC 5802: PBKDF2-HMAC-SHA-256 with one block, after SASLprep. As PostgreSQL does, a password that
/// SASLprep refuses, or that is not UTF-8, is used as it is (`scram_build_secret`).
pub(crate) fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Key {
    let mut prepared = match std::str::from_utf8(password).ok().map(stringprep::saslprep) {
        Some(Ok(prepared)) => prepared.into_owned().into_bytes(),
        _ => password.to_vec(),
    };
    let mut block = hmac(&prepared, &[salt, &1u32.to_be_bytes()]);
    let mut result = block;
    let keyed = Hmac::<Sha256>::new_from_slice(&prepared)
        .unwrap_or_else(|_| Hmac::<Sha256>::new(&Default::default()));
    for _ in 1..iterations {
        let mut mac = keyed.clone();
        mac.update(&block);
        block = mac.finalize().into_bytes().into();
        result = xor(&result, &block);
    }
    prepared.zeroize();
    block.zeroize();
    Key(result)
}

/// A fresh nonce in base64: printable and free of commas.
pub(crate) fn nonce() -> String {
    use base64::Engine as _;
    use rand::Rng as _;
    let mut raw = [0; RAW_NONCE_LEN];
    rand::rng().fill_bytes(&mut raw);
    base64::engine::general_purpose::STANDARD.encode(raw)
}
