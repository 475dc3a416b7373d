//! TLS of both legs: the certificate shown to clients, the check of the server's, and the hash both logins are bound to.
//! Owns rustls and its one crypto provider (aws-lc-rs, always passed explicitly); refuses to know logins and routes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use sha2::Digest as _;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_cert::der::Decode as _;

use crate::config::{SslMode, TlsConfig};
use crate::stream::Stream;

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
    /// A client that began with TLS at once did not name the protocol.
    #[error("direct TLS connection without ALPN protocol \"postgresql\"")]
    NoAlpn,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn read_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason: String| TlsError::File { path: path.to_owned(), reason };
    let certs: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| failed(error.to_string()))?;
    if certs.is_empty() { Err(failed("no certificate in it".into())) } else { Ok(certs) }
}

/// The certificate shown to clients.
#[derive(Clone)]
pub struct ClientTls {
    acceptor: TlsAcceptor,
    end_point: Option<Vec<u8>>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads certificate chain and key.
    ///
    /// # Errors
    /// [`TlsError`] when a file cannot be read or key and certificate do not fit.
    pub fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let chain = read_certs(&config.cert)?;
        let key = PrivateKeyDer::from_pem_file(&config.key)
            .map_err(|error| TlsError::File { path: config.key.clone(), reason: error.to_string() })?;
        let end_point = chain.first().and_then(|leaf| end_point_hash(leaf));
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(server)), end_point })
    }

    /// The handshake with a client whose SSLRequest was answered `S`.
    ///
    /// # Errors
    /// [`TlsError::Handshake`].
    pub async fn accept(&self, stream: TcpStream) -> Result<Stream, TlsError> {
        let stream = self.acceptor.accept(stream).await.map_err(TlsError::Handshake)?;
        Ok(Stream::ServerTls(Box::new(stream)))
    }

    /// The handshake with a client that began with it at once (libpq's `sslnegotiation=direct`); ALPN is then a must.
    ///
    /// # Errors
    /// [`TlsError::Handshake`], [`TlsError::NoAlpn`].
    pub async fn accept_direct(&self, stream: TcpStream) -> Result<Stream, TlsError> {
        let stream = self.acceptor.accept(stream).await.map_err(TlsError::Handshake)?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(TlsError::NoAlpn);
        }
        Ok(Stream::ServerTls(Box::new(stream)))
    }

    /// The tls-server-end-point data of our certificate; `None` when its signature algorithm has no single hash.
    #[must_use]
    pub fn end_point(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }
}

/// TLS towards one server, by libpq's `sslmode`.
#[derive(Clone)]
pub struct ServerTls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Settings for a host. Like libpq, `require` with a root certificate file verifies the chain.
    ///
    /// # Errors
    /// [`TlsError`] when roots cannot be read or the name fits no certificate.
    pub fn new(mode: SslMode, host: &str, roots: Option<&Path>) -> Result<Self, TlsError> {
        let mode = if mode == SslMode::Require && roots.is_some() { SslMode::VerifyCa } else { mode };
        let verify = matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull);
        let name = match ServerName::try_from(host.to_owned()) {
            Ok(name) => name,
            Err(_) if mode == SslMode::VerifyFull => return Err(TlsError::Name(host.to_owned())),
            // An address is never sent as server name, and nothing is compared with it.
            Err(_) => ServerName::from(std::net::IpAddr::from([127, 0, 0, 1])),
        };
        let verifier = if verify {
            Verifier::with_roots(load_roots(roots)?, mode == SslMode::VerifyFull)?
        } else {
            Verifier::without_checks()
        };
        let mut client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        client.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(client)), name })
    }

    /// The handshake with a server that answered SSLRequest with `S`; also gives the tls-server-end-point data of its
    /// certificate, if there is one.
    ///
    /// # Errors
    /// [`TlsError::Handshake`], also when the certificate is refused.
    pub async fn connect(&self, stream: TcpStream) -> Result<(Stream, Option<Vec<u8>>), TlsError> {
        let stream = self.connector.connect(self.name.clone(), stream).await.map_err(TlsError::Handshake)?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let end_point = leaf.and_then(|leaf| end_point_hash(leaf));
        Ok((Stream::ClientTls(Box::new(stream)), end_point))
    }
}

fn load_roots(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    match file {
        Some(path) => read_certs(path),
        None => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() { Err(TlsError::NoRoots) } else { Ok(found.certs) }
        }
    }
}

/// The hash of a certificate for channel binding (RFC 5929, section 4.1): by the hash of its signature algorithm, with
/// SHA-256 in place of MD5 and SHA-1. `None` for algorithms without exactly one hash, such as Ed25519: neither server
/// nor libpq binds to those.
fn end_point_hash(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = x509_cert::Certificate::from_der(certificate).ok()?;
    let oid = parsed.signature_algorithm.oid.to_string();
    Some(match oid.as_str() {
        // md5, sha1 and sha256 with RSA; ECDSA with SHA-1 and SHA-256
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => sha2::Sha256::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => sha2::Sha384::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => sha2::Sha512::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => sha2::Sha224::digest(certificate).to_vec(),
        _ => return None,
    })
}

/// libpq's rules for a server's certificate: nothing, the chain, or chain and name.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
    roots: Vec<CertificateDer<'static>>,
    check_name: bool,
}

impl Verifier {
    fn without_checks() -> Self {
        Self { provider: provider(), chain: None, roots: Vec::new(), check_name: false }
    }

    fn with_roots(roots: Vec<CertificateDer<'static>>, check_name: bool) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
            .build()
            .map_err(|_| TlsError::NoRoots)?;
        Ok(Self { provider: provider(), chain: Some(chain), roots, check_name })
    }

    /// A self-signed certificate that is itself among the roots: OpenSSL trusts it, webpki wants no CA as a leaf.
    fn is_trusted_itself(&self, leaf: &CertificateDer<'_>, now: UnixTime) -> bool {
        let Ok(parsed) = x509_cert::Certificate::from_der(leaf) else { return false };
        let validity = &parsed.tbs_certificate.validity;
        let now = now.as_secs();
        let from = validity.not_before.to_unix_duration().as_secs();
        let until = validity.not_after.to_unix_duration().as_secs();
        self.roots.iter().any(|root| root == leaf) && (from..=until).contains(&now)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(leaf, intermediates, name, ocsp, now) {
            Ok(verified) => Ok(verified),
            // Only the name was wrong: webpki looks at it last.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            Err(_) if self.is_trusted_itself(leaf, now) => {
                if self.check_name {
                    rustls::client::verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            Err(error) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
