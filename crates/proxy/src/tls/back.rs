//! TLS with servers, by libpq's `sslmode`: what is checked of their certificates, and the one shown to them.
//! Owns those rules; refuses to know SSLRequest and logins.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_cert::der::Decode as _;

use super::end_point::end_point_hash;
use super::{ALPN, TlsError, provider, read_certs, read_key};
use crate::config::{ServerConfig, SslMode};
use crate::stream::Stream;

/// TLS towards one server, by libpq's `sslmode`.
pub struct ServerTls {
    mode: SslMode,
    roots: Option<PathBuf>,
    own: Option<(PathBuf, PathBuf)>,
    name: ServerName<'static>,
    connector: ArcSwap<TlsConnector>,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Settings for a server. Like libpq, `require` with a root certificate file verifies the chain.
    ///
    /// # Errors
    /// [`TlsError`] when a file cannot be read, key and certificate do not fit, or the name fits no certificate.
    pub fn new(server: &ServerConfig) -> Result<Self, TlsError> {
        let roots = server.sslrootcert.clone();
        let required = server.sslmode == SslMode::Require && roots.is_some();
        let mode = if required { SslMode::VerifyCa } else { server.sslmode };
        let name = match ServerName::try_from(server.host.clone()) {
            Ok(name) => name,
            Err(_) if mode == SslMode::VerifyFull => return Err(TlsError::Name(server.host.clone())),
            // An address is never sent as server name, and nothing is compared with it.
            Err(_) => ServerName::from(std::net::IpAddr::from([127, 0, 0, 1])),
        };
        let own = server.sslcert.clone().zip(server.sslkey.clone());
        let connector = ArcSwap::from_pointee(connector(mode, roots.as_deref(), own.as_ref())?);
        Ok(Self { mode, roots, own, name, connector })
    }

    /// Reads roots, certificate and key again, for connections from now on.
    ///
    /// # Errors
    /// As [`ServerTls::new`]; what was read before stays then.
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = connector(self.mode, self.roots.as_deref(), self.own.as_ref())?;
        self.connector.store(Arc::new(read));
        Ok(())
    }

    /// The handshake with a server; also gives the tls-server-end-point data of its certificate, if there is one. `direct`:
    /// the server was not asked by SSLRequest, and has to name the protocol.
    ///
    /// # Errors
    /// [`TlsError::Handshake`], also when the certificate is refused; [`TlsError::NoAlpn`].
    pub async fn connect(
        &self,
        stream: TcpStream,
        direct: bool,
    ) -> Result<(Stream, Option<Vec<u8>>), TlsError> {
        let connector = self.connector.load_full();
        let stream = connector.connect(self.name.clone(), stream).await.map_err(TlsError::Handshake)?;
        let connection = stream.get_ref().1;
        if direct && connection.alpn_protocol() != Some(ALPN) {
            return Err(TlsError::NoAlpn);
        }
        let leaf = connection.peer_certificates().and_then(|chain| chain.first());
        let end_point = leaf.and_then(|leaf| end_point_hash(leaf));
        Ok((Stream::ClientTls(Box::new(stream)), end_point))
    }
}

fn connector(
    mode: SslMode,
    roots: Option<&Path>,
    own: Option<&(PathBuf, PathBuf)>,
) -> Result<TlsConnector, TlsError> {
    let verifier = if matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull) {
        Verifier::with_roots(load_roots(roots)?, mode == SslMode::VerifyFull)?
    } else {
        Verifier::without_checks()
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut client = match own {
        Some((cert, key)) => builder.with_client_auth_cert(read_certs(cert)?, read_key(key)?)?,
        None => builder.with_no_client_auth(),
    };
    client.alpn_protocols = vec![ALPN.to_vec()];
    Ok(TlsConnector::from(Arc::new(client)))
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
