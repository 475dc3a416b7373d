//! TLS of both legs: the certificate shown to clients (`front`), the check of the servers' (`back`), and the hash that
//! logins are bound to (`end_point`).
//! Owns rustls and its one crypto provider (aws-lc-rs, always passed explicitly); refuses to know logins and routes.

mod back;
mod end_point;
mod front;
mod subject;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use back::ServerTls;
pub use front::ClientTls;
pub use subject::common_name;

/// The protocol name of ALPN (PostgreSQL documentation, "SSL Session Encryption").
const ALPN: &[u8] = b"postgresql";

/// Why TLS cannot be set up or a handshake failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A certificate, key or root file cannot be read or is not PEM.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key do not fit, or rustls refuses the settings.
    #[error("TLS settings: {0}")]
    Settings(#[from] rustls::Error),
    /// The system has no root certificates and no file is configured.
    #[error("the system has no root certificates, and no sslrootcert is configured")]
    NoRoots,
    /// The server's name cannot stand in a certificate.
    #[error("\"{0}\" is no host name that a certificate could have")]
    Name(String),
    /// The handshake failed.
    #[error("TLS handshake: {0}")]
    Handshake(std::io::Error),
    /// TLS from the first byte, and the other side did not name the protocol.
    #[error("direct TLS connection without ALPN protocol \"postgresql\"")]
    NoAlpn,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn unusable(path: &Path, reason: impl std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), reason: reason.to_string() }
}

fn read_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unusable(path, error))?;
    if certs.is_empty() { Err(unusable(path, "no certificate in it")) } else { Ok(certs) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unusable(path, error))
}
