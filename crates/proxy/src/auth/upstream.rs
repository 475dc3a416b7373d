//! Opening an upstream: connect, startup, the server's authentication, everything up to its first ReadyForQuery.
//! Owns that login and its deadline; refuses to know what the session does afterwards.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pgteal_wire::cancel::CancelKey;
use pgteal_wire::frame::{self, Frame, FrameError};
use pgteal_wire::md5::Md5Verifier;
use pgteal_wire::message::MessageError;
use pgteal_wire::message::authentication::Authentication;
use pgteal_wire::message::backend::{
    NegotiateProtocolVersion, ParameterStatus, parse_backend_key_data, parse_ready_for_query,
};
use pgteal_wire::message::frontend::{put_password, put_sasl_initial, put_sasl_response};
use pgteal_wire::message::report::{Fields, Report, field};
use pgteal_wire::message::tag::back;
use pgteal_wire::scram::{ClientBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramClient, ScramError};
use pgteal_wire::startup::{ProtocolVersion, StartupMessage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::client::shown;
use super::credentials::Credentials;
use super::target::{Connected, Target, TargetError};
use crate::stream::Stream;

/// Longest message of a server during login, in bytes. Errors and notices are the longest there are.
const MAX_LOGIN_MESSAGE: usize = 1 << 20;
/// Messages of a server during login, at most: a server that never stops talking is not one.
const MAX_LOGIN_MESSAGES: usize = 10_000;

/// A server connection that has said its first ReadyForQuery.
#[derive(Debug)]
pub struct Upstream {
    /// The connection.
    pub stream: Stream,
    /// Bytes received behind ReadyForQuery: empty, unless the server sent a notification or parameter just then.
    pub leftover: BytesMut,
    /// Every ParameterStatus in order.
    pub parameters: Vec<(Vec<u8>, Vec<u8>)>,
    /// The cancel key, if the server gave one: not all do, and none is to be invented then.
    pub cancel_key: Option<CancelKey>,
    /// NoticeResponses as received, for the client.
    pub notices: BytesMut,
    /// The protocol version in force.
    pub version: ProtocolVersion,
}

/// Whose bound of connections a server has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The role's own.
    OfRole,
    /// The server's, or the database's.
    OfAny,
}

/// Why an upstream could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// The server cannot be reached.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The server refused: its ErrorResponse as received.
    #[error("{server} refused the login: {}", summary(.response))]
    Refused {
        /// Which server.
        server: String,
        /// The whole ErrorResponse, for the client.
        response: Bytes,
    },
    /// The server asks for what the credentials cannot answer.
    #[error("{server} asks user \"{user}\" for {method}, and the session has {have}")]
    Unanswerable {
        /// Which server.
        server: String,
        /// As whom.
        user: String,
        /// What it asks for.
        method: String,
        /// What there is.
        have: &'static str,
    },
    /// SCRAM failed on our side: the verifiers differ, or the server could not prove itself.
    #[error("{server}, user \"{user}\": {source}")]
    Scram {
        /// Which server.
        server: String,
        /// As whom.
        user: String,
        /// Why.
        source: ScramError,
    },
    /// The server broke the protocol.
    #[error("{server} broke the protocol during login: {reason}")]
    Protocol {
        /// Which server.
        server: String,
        /// How.
        reason: String,
    },
    /// The connection broke.
    #[error("{server}: connection lost {stage}: {source}")]
    Io {
        /// Which server.
        server: String,
        /// How far the login had come.
        stage: Stage,
        /// What the system said.
        source: io::Error,
    },
    /// The deadline passed.
    #[error("{server}: login not finished within {} ms, last {stage}", .limit.as_millis())]
    Timeout {
        /// Which server.
        server: String,
        /// How far the login had come.
        stage: Stage,
        /// The deadline.
        limit: Duration,
    },
}

/// How far a login has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Connecting, TLS included.
    Connecting,
    /// The startup packet is on its way, the server has not answered.
    AwaitingRequest,
    /// Proving who we are.
    Authenticating,
    /// Authenticated; parameters are coming in.
    AwaitingReady,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connecting => "while connecting",
            Self::AwaitingRequest => "while waiting for the authentication request",
            Self::Authenticating => "while authenticating",
            Self::AwaitingReady => "while waiting for ReadyForQuery",
        })
    }
}

fn summary(response: &[u8]) -> String {
    match Fields::parse(response.get(frame::HEADER_LEN..).unwrap_or_default()) {
        Ok(fields) => format!("{} {}", fields.sqlstate(), fields.message()),
        Err(error) => error.to_string(),
    }
}

impl UpstreamError {
    /// What the client is to be told: the server's own bytes, or a FATAL report that names no address.
    #[must_use]
    pub fn client_bytes(&self, user: &[u8]) -> Bytes {
        let report = match self {
            Self::Refused { response, .. } => return response.clone(),
            Self::Scram { .. } | Self::Unanswerable { .. } => {
                Report::fatal("28P01", format!("password authentication failed for user \"{}\"", shown(user)))
            }
            Self::Protocol { .. } => Report::fatal("08P01", "the server broke the protocol during login"),
            Self::Timeout { .. } => Report::fatal("08006", "the server did not answer the login in time"),
            Self::Target(_) | Self::Io { .. } => Report::fatal("08006", "the server cannot be reached"),
        };
        let mut out = BytesMut::new();
        report.encode(&mut out);
        out.freeze()
    }

    /// Whether what the client has proven is no proof for this server: not the password that it stores, or no longer one.
    #[must_use]
    pub fn is_password_failure(&self) -> bool {
        match self {
            Self::Scram { source, .. } => *source == ScramError::VerifierDiffers,
            Self::Unanswerable { .. } => true,
            Self::Refused { response, .. } => {
                Fields::parse(response.get(frame::HEADER_LEN..).unwrap_or_default())
                    .is_ok_and(|fields| fields.sqlstate() == "28P01")
            }
            _ => false,
        }
    }

    /// What the server has no place for, when it is that (`too_many_connections`).
    #[must_use]
    pub fn want_of_room(&self) -> Option<Want> {
        let Self::Refused { response, .. } = self else { return None };
        let fields = Fields::parse(response.get(frame::HEADER_LEN..).unwrap_or_default()).ok()?;
        // The role's own limit is looked at there (PostgreSQL `src/backend/utils/init/miscinit.c`).
        let of_role = fields.get(field::ROUTINE) == Some(b"InitializeSessionUserId");
        (fields.sqlstate() == "53300").then_some(if of_role { Want::OfRole } else { Want::OfAny })
    }

    /// Whether the server is not there for anybody, whoever asks and for what: it cannot be reached, or takes no logins now
    /// (`cannot_connect_now`). How long it takes from the startup packet on may be the client's own doing
    /// (`post_auth_delay`, for one, is any client's to set).
    #[must_use]
    pub fn is_no_answer(&self) -> bool {
        match self {
            Self::Target(_) => true,
            Self::Io { stage, .. } | Self::Timeout { stage, .. } => *stage == Stage::Connecting,
            Self::Refused { response, .. } => {
                Fields::parse(response.get(frame::HEADER_LEN..).unwrap_or_default())
                    .is_ok_and(|fields| fields.sqlstate() == "57P03")
            }
            _ => false,
        }
    }

    /// Whether the credentials are at fault, so that a remembered verifier should be forgotten.
    #[must_use]
    pub fn is_authentication_failure(&self) -> bool {
        match self {
            Self::Scram { .. } | Self::Unanswerable { .. } => true,
            Self::Refused { response, .. } => {
                Fields::parse(response.get(frame::HEADER_LEN..).unwrap_or_default())
                    .is_ok_and(|fields| fields.sqlstate().starts_with("28"))
            }
            _ => false,
        }
    }
}

/// Opens an upstream within `limit`. The startup message is sent as it is; its `user` is the one who logs in.
///
/// # Errors
/// [`UpstreamError`]; no connection is left open then.
pub async fn log_in(
    target: &Target,
    startup: &StartupMessage,
    credentials: &Credentials,
    limit: Duration,
) -> Result<Upstream, UpstreamError> {
    let mut stage = Stage::Connecting;
    let result = tokio::time::timeout(limit, open(target, startup, credentials, &mut stage)).await;
    result.unwrap_or_else(|_| Err(UpstreamError::Timeout { server: target.shown(), stage, limit }))
}

async fn open(
    target: &Target,
    startup: &StartupMessage,
    credentials: &Credentials,
    stage: &mut Stage,
) -> Result<Upstream, UpstreamError> {
    let Connected { stream, end_point } = target.connect().await?;
    *stage = Stage::AwaitingRequest;
    let upstream = Upstream {
        stream,
        leftover: BytesMut::with_capacity(2048),
        parameters: Vec::new(),
        cancel_key: None,
        notices: BytesMut::new(),
        version: startup.version,
    };
    let user = startup.user().unwrap_or_default();
    let mut login = Login { target, user, credentials, end_point, upstream, stage, scram: None };
    login.send(&startup.encode()).await?;
    for _ in 0..MAX_LOGIN_MESSAGES {
        let message = login.receive().await?;
        if login.take(&message).await? {
            return Ok(login.upstream);
        }
    }
    Err(login.broken(format!("more than {MAX_LOGIN_MESSAGES} messages")))
}

struct Login<'a> {
    target: &'a Target,
    user: &'a [u8],
    credentials: &'a Credentials,
    end_point: Option<Vec<u8>>,
    upstream: Upstream,
    stage: &'a mut Stage,
    scram: Option<ScramClient>,
}

impl Login<'_> {
    /// Acts on one message; true when it was ReadyForQuery.
    async fn take(&mut self, message: &Frame) -> Result<bool, UpstreamError> {
        let body = message.body();
        match message.tag {
            back::AUTHENTICATION => {
                let request = Authentication::parse(body).map_err(|e| self.malformed(&e))?;
                self.authenticate(request).await?;
            }
            back::PARAMETER_STATUS => {
                let status = ParameterStatus::parse(body).map_err(|e| self.malformed(&e))?;
                self.upstream.parameters.push((status.name.to_vec(), status.value.to_vec()));
            }
            back::BACKEND_KEY_DATA => {
                let key = parse_backend_key_data(body).map_err(|e| self.malformed(&e))?;
                self.upstream.cancel_key = Some(key);
            }
            back::NEGOTIATE_PROTOCOL_VERSION => {
                let newest = NegotiateProtocolVersion::parse(body).map_err(|e| self.malformed(&e))?.newest;
                self.upstream.version = self.upstream.version.min(newest);
            }
            back::NOTICE => self.upstream.notices.extend_from_slice(&message.whole),
            back::ERROR => {
                let (server, response) = (self.target.shown(), message.whole.clone());
                return Err(UpstreamError::Refused { server, response });
            }
            back::READY_FOR_QUERY if *self.stage == Stage::AwaitingReady => {
                parse_ready_for_query(body).map_err(|e| self.malformed(&e))?;
                return Ok(true);
            }
            tag => return Err(self.broken(format!("unexpected message 0x{tag:02x} {}", self.stage))),
        }
        Ok(false)
    }

    async fn authenticate(&mut self, request: Authentication<'_>) -> Result<(), UpstreamError> {
        if *self.stage == Stage::AwaitingReady {
            return Err(self.broken("authentication request after AuthenticationOk".into()));
        }
        let mut out = BytesMut::new();
        match request {
            Authentication::Ok => {
                // A server that stops halfway through SCRAM has not proven that it knows the verifier.
                if self.scram.as_ref().is_some_and(|scram| !scram.is_done()) {
                    return Err(self.broken("AuthenticationOk before the server's signature".into()));
                }
                *self.stage = Stage::AwaitingReady;
                return Ok(());
            }
            Authentication::Cleartext => match self.credentials {
                Credentials::Password(password) => put_password(&mut out, password),
                _ => return Err(self.unanswerable("a cleartext password")),
            },
            Authentication::Md5 { salt } => match self.credentials {
                Credentials::Md5(verifier) => put_password(&mut out, &verifier.answer(salt)),
                Credentials::Password(password) => {
                    put_password(&mut out, &Md5Verifier::from_password(password, self.user).answer(salt));
                }
                _ => return Err(self.unanswerable("md5")),
            },
            Authentication::Sasl { mechanisms } => {
                let scram = self.start_scram(&mechanisms)?;
                put_sasl_initial(&mut out, scram.mechanism(), &scram.first());
                self.scram = Some(scram);
            }
            Authentication::SaslContinue(data) => {
                let reply = self.reply_to(data).await?;
                put_sasl_response(&mut out, &reply);
            }
            Authentication::SaslFinal(data) => return self.with_scram(|scram| scram.finish(data)),
            Authentication::Unsupported(code) => {
                return Err(self.unanswerable(&format!("authentication method {code}")));
            }
        }
        *self.stage = Stage::Authenticating;
        self.send(&out).await
    }

    fn start_scram(&self, mechanisms: &[&str]) -> Result<ScramClient, UpstreamError> {
        let binding = if mechanisms.contains(&SCRAM_SHA_256_PLUS) {
            // Without a hash we cannot bind, and must not claim that the server could not.
            self.end_point.clone().map_or(ClientBinding::Unsupported, ClientBinding::EndPoint)
        } else if self.end_point.is_some() {
            ClientBinding::NotOffered
        } else {
            ClientBinding::Unsupported
        };
        if !matches!(binding, ClientBinding::EndPoint(_)) && !mechanisms.contains(&SCRAM_SHA_256) {
            return Err(self.unanswerable(&format!("SASL by {}", mechanisms.join(", "))));
        }
        match self.credentials {
            Credentials::Scram(keys) if keys.user() == self.user => {
                Ok(ScramClient::with_keys(keys.as_ref().clone(), binding))
            }
            Credentials::Password(password) => Ok(ScramClient::with_password(password, binding)
                .max_iterations(self.target.max_scram_iterations)),
            _ => Err(self.unanswerable("SCRAM-SHA-256")),
        }
    }

    /// Thousands of rounds of hashing, when all that is known is the password: as many as the user's verifier has, up to a second
    /// or so of them, and not on a thread that others live on.
    async fn reply_to(&mut self, data: &[u8]) -> Result<Vec<u8>, UpstreamError> {
        let by_password = matches!(self.credentials, Credentials::Password(_));
        let Some(mut scram) = self.scram.take_if(|_| by_password) else {
            return self.with_scram(|scram| scram.reply(data));
        };
        let data = data.to_vec();
        let hashed = tokio::task::spawn_blocking(move || {
            let reply = scram.reply(&data);
            (scram, reply)
        });
        let (scram, reply) = hashed.await.map_err(|error| self.broken(error.to_string()))?;
        self.scram = Some(scram);
        self.with_scram(|_| reply)
    }

    fn with_scram<T>(
        &mut self,
        act: impl FnOnce(&mut ScramClient) -> Result<T, ScramError>,
    ) -> Result<T, UpstreamError> {
        let result = self.scram.as_mut().map(act);
        match result {
            Some(Ok(value)) => Ok(value),
            Some(Err(source)) => {
                let (server, user) = (self.target.shown(), shown(self.user));
                Err(UpstreamError::Scram { server, user, source })
            }
            None => Err(self.broken("SASL data before a SASL request".into())),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), UpstreamError> {
        let stream = &mut self.upstream.stream;
        let sent = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        sent.await.map_err(|source| self.lost(source))
    }

    async fn receive(&mut self) -> Result<Frame, UpstreamError> {
        loop {
            let taken = frame::take(&mut self.upstream.leftover, MAX_LOGIN_MESSAGE);
            match taken.map_err(|e: FrameError| self.broken(e.to_string()))? {
                Some(message) => return Ok(message),
                None => {
                    let read = self.upstream.stream.read_buf(&mut self.upstream.leftover).await;
                    if read.map_err(|source| self.lost(source))? == 0 {
                        return Err(self.lost(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
    }

    fn lost(&self, source: io::Error) -> UpstreamError {
        UpstreamError::Io { server: self.target.shown(), stage: *self.stage, source }
    }

    fn malformed(&self, error: &MessageError) -> UpstreamError {
        self.broken(error.to_string())
    }

    fn broken(&self, reason: String) -> UpstreamError {
        UpstreamError::Protocol { server: self.target.shown(), reason }
    }

    fn unanswerable(&self, method: &str) -> UpstreamError {
        UpstreamError::Unanswerable {
            server: self.target.shown(),
            user: shown(self.user),
            method: method.to_owned(),
            have: self.credentials.kind(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_what_no_client_can_bring_about_tells_that_a_server_is_not_there() {
        let limit = Duration::from_secs(1);
        for (stage, expected) in [
            (Stage::Connecting, true),
            (Stage::AwaitingRequest, false),
            (Stage::Authenticating, false),
            (Stage::AwaitingReady, false),
        ] {
            let timeout = UpstreamError::Timeout { server: "s".into(), stage, limit };
            assert_eq!(timeout.is_no_answer(), expected, "{stage}");
            let source = io::ErrorKind::ConnectionReset.into();
            let lost = UpstreamError::Io { server: "s".into(), stage, source };
            assert_eq!(lost.is_no_answer(), expected, "{stage}");
        }
        for (code, expected) in [("57P03", true), ("57P01", false), ("53300", false), ("28000", false)] {
            let mut response = BytesMut::new();
            Report::fatal(code, "no").encode(&mut response);
            let refused = UpstreamError::Refused { server: "s".into(), response: response.freeze() };
            assert_eq!(refused.is_no_answer(), expected, "{code}");
        }
    }
}
