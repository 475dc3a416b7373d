//! The login of a client: what is asked of it, how it is checked, what it is told when it is wrong.
//! Owns the exchange up to, not including, AuthenticationOk; refuses to know servers.

use std::io;

use bytes::BytesMut;
use pgteal_wire::md5::Md5Verifier;
use pgteal_wire::message::authentication::Authentication;
use pgteal_wire::message::frontend::{parse_password, parse_sasl_initial};
use pgteal_wire::message::report::Report;
use pgteal_wire::message::tag::front;
use pgteal_wire::scram::{ScramError, ScramServer, ServerBinding, Verifier};
use tokio::io::AsyncWriteExt as _;
use zeroize::Zeroizing;

use super::credentials::Credentials;
use super::greet::refuse;
use super::lookup::{LookupError, StoredVerifier, VerifierLookup};
use super::read;
use crate::config::{AuthMethod, ClientCert};
use crate::stream::Stream;
use crate::tls::common_name;

/// Longest password or SASL message taken from a client, in bytes (`PG_MAX_AUTH_TOKEN_LENGTH`).
const MAX_AUTH_MESSAGE: usize = 65_535;

/// Why a client is not let in. It has been told, with the SQLSTATE a server would have used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientLoginError {
    /// The client went away.
    #[error("client connection: {0}")]
    Io(#[from] io::Error),
    /// The client broke the protocol (told 08P01).
    #[error("client login: {0}")]
    Protocol(String),
    /// Wrong password, unknown user, expired user (told 28P01, always in the same words).
    #[error("password authentication failed for user \"{0}\"")]
    Refused(String),
    /// The policy asks for a cleartext password, and the connection is not encrypted (told 28000).
    #[error("cleartext password of user \"{0}\" refused on an unencrypted connection")]
    Unencrypted(String),
    /// A certificate is asked for, and none was shown (told 28000).
    #[error("user \"{0}\" without a client certificate refused")]
    NoCertificate(String),
    /// The certificate shown is another one's (told 28000).
    #[error("certificate authentication failed for user \"{0}\": its common name is another")]
    WrongCertificate(String),
    /// The verifier could not be looked up (told 08006).
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

impl ClientLoginError {
    fn report(&self) -> Option<Report> {
        Some(match self {
            Self::Io(_) => return None,
            Self::Protocol(reason) => Report::fatal("08P01", reason.clone()),
            Self::Refused(_) => Report::fatal("28P01", self.to_string()),
            Self::Unencrypted(_) => {
                Report::fatal("28000", "cleartext password authentication needs an encrypted connection")
            }
            Self::NoCertificate(_) => {
                Report::fatal("28000", "connection requires a valid client certificate")
            }
            Self::WrongCertificate(user) => {
                Report::fatal("28000", format!("certificate authentication failed for user \"{user}\""))
            }
            Self::Lookup(_) => {
                Report::fatal("08006", "the server could not be asked for the user's verifier")
            }
        })
    }
}

/// The policy of client logins, one for the whole proxy.
#[derive(Debug)]
pub struct ClientLogin<L> {
    method: AuthMethod,
    cleartext_without_tls: bool,
    clientcert: ClientCert,
    mock_secret: Zeroizing<[u8; 32]>,
    lookup: L,
}

impl<L: VerifierLookup> ClientLogin<L> {
    /// A policy. `mock_secret` makes the salts shown for unknown users; it should be the same after a restart, for
    /// otherwise a changed salt tells them from known ones.
    pub fn new(method: AuthMethod, cleartext_without_tls: bool, mock_secret: [u8; 32], lookup: L) -> Self {
        let (clientcert, mock_secret) = (ClientCert::Optional, Zeroizing::new(mock_secret));
        Self { method, cleartext_without_tls, clientcert, mock_secret, lookup }
    }

    /// What is asked of clients' certificates.
    #[must_use]
    pub fn clientcert(self, clientcert: ClientCert) -> Self {
        Self { clientcert, ..self }
    }

    /// Where verifiers come from.
    pub fn lookup(&self) -> &L {
        &self.lookup
    }

    /// Runs the exchange with a client whose startup packet has been read. On success the client waits for
    /// AuthenticationOk, which the caller sends when it has an upstream: with [`AuthMethod::Cleartext`] nobody has checked
    /// the password yet. The caller bounds the time.
    ///
    /// # Errors
    /// [`ClientLoginError`]; the client has been told.
    pub async fn run(&self, stream: &mut Stream, user: &[u8]) -> Result<Credentials, ClientLoginError> {
        let result = match (self.certificate(stream, user), self.method) {
            (Err(error), _) => Err(error),
            (Ok(()), AuthMethod::Trust | AuthMethod::Cert) => Ok(Credentials::None),
            (Ok(()), AuthMethod::Cleartext) => self.cleartext(stream, user).await,
            (Ok(()), AuthMethod::Verifier) => self.verifier(stream, user).await,
        };
        if let Err(error) = &result {
            if matches!(error, ClientLoginError::Refused(_)) {
                self.lookup.login_failed(user);
            }
            if let Some(report) = error.report() {
                refuse(stream, report).await;
            }
        }
        result
    }

    /// The handshake has verified the certificate, if there is one; here it is held against what is asked.
    fn certificate(&self, stream: &Stream, user: &[u8]) -> Result<(), ClientLoginError> {
        let named = self.method == AuthMethod::Cert;
        if !named && (self.clientcert == ClientCert::Optional || stream.is_unix()) {
            return Ok(());
        }
        let shown_to_us = stream.client_certificate();
        let certificate = shown_to_us.ok_or_else(|| ClientLoginError::NoCertificate(shown(user)))?;
        let fits = || common_name(certificate).as_deref() == Some(user);
        if (named || self.clientcert == ClientCert::VerifyFull) && !fits() {
            return Err(ClientLoginError::WrongCertificate(shown(user)));
        }
        Ok(())
    }

    async fn cleartext(&self, stream: &mut Stream, user: &[u8]) -> Result<Credentials, ClientLoginError> {
        if !stream.is_tls() && !stream.is_unix() && !self.cleartext_without_tls {
            return Err(ClientLoginError::Unencrypted(shown(user)));
        }
        send(stream, &Authentication::Cleartext).await?;
        let body = answer(stream).await?;
        let password =
            parse_password(&body).map_err(|error| ClientLoginError::Protocol(error.to_string()))?;
        // A server refuses an empty password before it looks at verifiers.
        if password.is_empty() {
            return Err(ClientLoginError::Refused(shown(user)));
        }
        Ok(Credentials::password(password))
    }

    async fn verifier(&self, stream: &mut Stream, user: &[u8]) -> Result<Credentials, ClientLoginError> {
        match self.lookup.verifier(user).await? {
            Some(StoredVerifier::Md5(verifier)) => self.md5(stream, user, verifier).await,
            Some(StoredVerifier::Scram(verifier)) => self.scram(stream, user, Some(*verifier)).await,
            None => self.scram(stream, user, None).await,
        }
    }

    async fn md5(
        &self,
        stream: &mut Stream,
        user: &[u8],
        verifier: Md5Verifier,
    ) -> Result<Credentials, ClientLoginError> {
        let salt = fresh_salt();
        send(stream, &Authentication::Md5 { salt }).await?;
        let body = answer(stream).await?;
        let given = parse_password(&body).map_err(|error| ClientLoginError::Protocol(error.to_string()))?;
        if verifier.accepts(salt, given) {
            return Ok(Credentials::Md5(verifier));
        }
        // The verifier may have been remembered from before a change of the password: ask again, once.
        self.lookup.login_failed(user);
        match self.lookup.verifier(user).await? {
            Some(StoredVerifier::Md5(fresh)) if fresh.accepts(salt, given) => Ok(Credentials::Md5(fresh)),
            _ => Err(ClientLoginError::Refused(shown(user))),
        }
    }

    async fn scram(
        &self,
        stream: &mut Stream,
        user: &[u8],
        verifier: Option<Verifier>,
    ) -> Result<Credentials, ClientLoginError> {
        let offered = match stream.end_point() {
            Some(data) => ServerBinding::EndPoint(data.to_vec()),
            None => ServerBinding::None,
        };
        let mut exchange = match verifier {
            Some(verifier) => ScramServer::new(user, verifier, offered),
            None => ScramServer::doomed(user, self.mock_secret.as_ref(), offered),
        };
        let failed = |error: ScramError| match error {
            ScramError::WrongProof => ClientLoginError::Refused(shown(user)),
            other => ClientLoginError::Protocol(other.to_string()),
        };
        send(stream, &Authentication::Sasl { mechanisms: exchange.mechanisms().to_vec() }).await?;
        let body = answer(stream).await?;
        let (mechanism, first) =
            parse_sasl_initial(&body).map_err(|error| ClientLoginError::Protocol(error.to_string()))?;
        let challenge = exchange.first(mechanism, first.unwrap_or_default()).map_err(failed)?;
        send(stream, &Authentication::SaslContinue(&challenge)).await?;
        let verified = exchange.finish(&answer(stream).await?).map_err(failed)?;
        send(stream, &Authentication::SaslFinal(&verified.server_final)).await?;
        Ok(Credentials::Scram(Box::new(verified.keys)))
    }
}

/// A user's name as it may stand in messages.
pub(super) fn shown(user: &[u8]) -> String {
    String::from_utf8_lossy(user).into_owned()
}

fn fresh_salt() -> [u8; 4] {
    // The random half of a minted cancel key: the same generator, no second dependency.
    pgteal_wire::cancel::CancelKey::mint(4)
        .ok()
        .and_then(|key| key.secret().try_into().ok())
        .unwrap_or_default()
}

async fn send(stream: &mut Stream, message: &Authentication<'_>) -> io::Result<()> {
    let mut out = BytesMut::new();
    message.encode(&mut out);
    stream.write_all(&out).await?;
    stream.flush().await
}

/// The body of the client's next message, which must be a password or SASL response.
async fn answer(stream: &mut Stream) -> Result<Zeroizing<Vec<u8>>, ClientLoginError> {
    match read::message(stream, MAX_AUTH_MESSAGE).await {
        Ok((front::PASSWORD, body)) => Ok(Zeroizing::new(body)),
        Ok((tag, _)) => Err(ClientLoginError::Protocol(format!(
            "expected password response, got message type 0x{tag:02X}"
        ))),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(ClientLoginError::Protocol(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}
