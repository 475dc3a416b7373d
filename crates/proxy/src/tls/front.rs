//! TLS with clients: the certificate shown to them, and theirs.
//! Owns reading the files again while clients come and go; refuses to know users.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::end_point::end_point_hash;
use super::{ALPN, TlsError, provider, read_certs, read_key, unusable};
use crate::config::TlsConfig;
use crate::stream::Stream;

/// The certificate shown to clients. It can be replaced while clients come and go.
pub struct ClientTls {
    config: TlsConfig,
    shown: ArcSwap<Shown>,
    /// Why the files could not be taken when they were last read again.
    refused: Mutex<Option<String>>,
}

struct Shown {
    acceptor: TlsAcceptor,
    end_point: Option<Arc<[u8]>>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("config", &self.config).finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Reads certificate chain and key, and the roots of clients' certificates if there are any.
    ///
    /// # Errors
    /// [`TlsError`] when a file cannot be read or key and certificate do not fit.
    pub fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let shown = ArcSwap::from_pointee(Shown::read(config)?);
        Ok(Self { config: config.clone(), shown, refused: Mutex::default() })
    }

    /// Reads the files again. Handshakes from now on show what they say; who is connected keeps the connection.
    ///
    /// # Errors
    /// As [`ClientTls::load`]; what was shown before stays then.
    pub fn reload(&self) -> Result<(), TlsError> {
        let read = Shown::read(&self.config);
        let reason = read.as_ref().err().map(ToString::to_string);
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = reason;
        self.shown.store(Arc::new(read?));
        Ok(())
    }

    /// Why what is in the files now is not what clients are shown.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The handshake with a client whose SSLRequest was answered `S`.
    ///
    /// # Errors
    /// [`TlsError::Handshake`].
    pub async fn accept(&self, stream: TcpStream) -> Result<Stream, TlsError> {
        let shown = self.shown.load_full();
        let stream = shown.acceptor.accept(stream).await.map_err(TlsError::Handshake)?;
        Ok(Stream::ServerTls(Box::new(stream), shown.end_point.clone()))
    }

    /// The handshake with a client that began with it at once (libpq's `sslnegotiation=direct`); ALPN is then a must.
    ///
    /// # Errors
    /// [`TlsError::Handshake`], [`TlsError::NoAlpn`].
    pub async fn accept_direct(&self, stream: TcpStream) -> Result<Stream, TlsError> {
        let stream = self.accept(stream).await?;
        match &stream {
            Stream::ServerTls(tls, _) if tls.get_ref().1.alpn_protocol() == Some(ALPN) => Ok(stream),
            _ => Err(TlsError::NoAlpn),
        }
    }
}

impl Shown {
    fn read(config: &TlsConfig) -> Result<Self, TlsError> {
        let chain = read_certs(&config.cert)?;
        let end_point = chain.first().and_then(|leaf| end_point_hash(leaf)).map(Arc::from);
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
        let builder = match &config.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(read_certs(path)?);
                // Who comes without one is told in the login, in words, as by a server.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| unusable(path, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut server = builder.with_single_cert(chain, read_key(&config.key)?)?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(server)), end_point })
    }
}
