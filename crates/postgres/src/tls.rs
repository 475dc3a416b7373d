//! TLS for our own connections: libpq's `sslmode` as a rustls verifier. Knows certificates, not what is said over them.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::conninfo::{ConnInfo, ConnInfoError, RootCert, SslMode};

/// How to secure a connection.
#[derive(Clone)]
pub(crate) enum Tls {
    Off,
    On(MakeRustlsConnect),
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Tls::Off) { "Off" } else { "On" })
    }
}

/// Reads the certificate files that the settings name.
pub(crate) fn build(info: &ConnInfo) -> Result<Tls, ConnInfoError> {
    // libpq ignores sslmode on Unix sockets, and no server offers TLS there.
    if info.is_socket() || info.sslmode == SslMode::Disable {
        return Ok(Tls::Off);
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = verifier(info, &provider)?;
    let failed = |e: rustls::Error| ConnInfoError::Value {
        key: "sslcert".to_owned(),
        value: e.to_string(),
        expected: "a certificate and key that TLS can use",
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match client_certificate(info)? {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).map_err(failed)?,
        None => config.with_no_client_auth(),
    };
    if info.ssl_direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(Tls::On(MakeRustlsConnect::new(config)))
}

fn verifier(
    info: &ConnInfo,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, ConnInfoError> {
    let default_exists = matches!(&info.rootcert, RootCert::Default(Some(path)) if path.exists());
    let has_roots = default_exists || !matches!(info.rootcert, RootCert::Default(_));
    let wanted = match info.sslmode {
        // A root certificate turns `require` into `verify-ca`, for libpq's own backward compatibility.
        SslMode::Require if has_roots => SslMode::VerifyCa,
        mode => mode,
    };
    if !matches!(wanted, SslMode::VerifyCa | SslMode::VerifyFull) {
        return Ok(Arc::new(Lenient { roots: None, provider: Arc::clone(provider) }));
    }
    let roots = Arc::new(roots(&info.rootcert)?);
    if wanted == SslMode::VerifyCa {
        return Ok(Arc::new(Lenient { roots: Some(roots), provider: Arc::clone(provider) }));
    }
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build().map_err(|e| {
            ConnInfoError::Value {
                key: "sslrootcert".to_owned(),
                value: e.to_string(),
                expected: "a set of root certificates",
            }
        })?;
    Ok(verifier)
}

fn roots(from: &RootCert) -> Result<RootCertStore, ConnInfoError> {
    let mut store = RootCertStore::empty();
    let path = match from {
        RootCert::System => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(store);
        }
        RootCert::File(path) | RootCert::Default(Some(path)) => path,
        RootCert::Default(None) => {
            return Err(file_error(
                "root certificate file",
                "~/.postgresql/root.crt",
                "there is no home directory",
            ));
        }
    };
    let shown = path.display().to_string();
    for cert in certificates("root certificate file", &shown)? {
        store.add(cert).map_err(|e| file_error("root certificate file", &shown, e))?;
    }
    Ok(store)
}

type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_certificate(info: &ConnInfo) -> Result<Option<ClientCertificate>, ConnInfoError> {
    let (Some(cert), Some(key)) = (&info.sslcert, &info.sslkey) else { return Ok(None) };
    let chain = certificates("client certificate file", &cert.display().to_string())?;
    let key_name = key.display().to_string();
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| file_error("client key file", &key_name, e))?;
    Ok(Some((chain, key)))
}

fn certificates(what: &'static str, path: &str) -> Result<Vec<CertificateDer<'static>>, ConnInfoError> {
    let certs: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| file_error(what, path, e));
    match certs {
        Ok(certs) if certs.is_empty() => Err(file_error(what, path, "it holds no certificate")),
        other => other,
    }
}

fn file_error(what: &'static str, path: &str, message: impl ToString) -> ConnInfoError {
    ConnInfoError::File { what, path: path.to_owned(), message: message.to_string() }
}

/// `prefer` and `require` (no roots: any certificate) and `verify-ca` (roots: the chain, not the host name). The
/// handshake's signature is checked always, so that whoever presents a certificate also holds its key.
#[derive(Debug)]
struct Lenient {
    roots: Option<Arc<RootCertStore>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        let cert = ParsedCertificate::try_from(end_entity)
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &cert,
            roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
