//! The first packets of a client: TLS or not, a cancel request or a session.
//! Owns reading them without taking a byte too many; refuses to know users and passwords.

use std::io;

use pgteal_wire::cancel::CancelKey;
use pgteal_wire::message::backend::NegotiateProtocolVersion;
use pgteal_wire::message::report::Report;
use pgteal_wire::startup::{self, FirstPacket, ProtocolVersion, StartupError, StartupMessage};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::stream::Stream;
use crate::tls::{ClientTls, TlsError};

/// First byte of a TLS handshake record: a client that begins with TLS at once.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a connection wants.
#[derive(Debug)]
pub enum Greeting {
    /// Cancel the query of the session with this key.
    Cancel {
        /// To be closed without an answer when the server has been asked, not before: what the client says next it says
        /// after that, and takes for safe from the cancel.
        stream: Stream,
        /// The key it was given.
        key: CancelKey,
    },
    /// A session. Nothing beyond the startup packet has been read; NegotiateProtocolVersion has been sent where due.
    Session {
        /// The stream, with TLS if the client asked for it.
        stream: Stream,
        /// What it asked for. The version is the one agreed upon; the `_pq_.` options, of which we know none, are gone.
        startup: StartupMessage,
    },
}

/// Why a connection ends before a login.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GreetError {
    /// The client went away, at once or within a packet.
    #[error("client connection: {0}")]
    Io(#[from] io::Error),
    /// The packet is not one.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// The TLS handshake failed.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// TLS is required and the client did without.
    #[error("client did not ask for TLS, which is required")]
    TlsRequired,
    /// SSLRequest or GSSENCRequest twice.
    #[error("client asked for encryption twice")]
    EncryptionTwice,
}

/// Reads up to the startup packet. `tls_required` counts on TCP only. The caller bounds the time (the client's login
/// timeout). A client that can still be told why it is refused has been told when this returns.
///
/// # Errors
/// [`GreetError`]; the connection is then of no use.
pub async fn greet(
    stream: Stream,
    tls: Option<&ClientTls>,
    tls_required: bool,
) -> Result<Greeting, GreetError> {
    let mut stream = direct_tls(stream, tls).await?;
    let (mut asked_ssl, mut asked_gss) = (false, false);
    loop {
        match read_packet(&mut stream).await {
            // Each once, in either order, as long as the other was declined; direct TLS leaves both open, to be declined.
            Ok(FirstPacket::Ssl) if !asked_ssl => {
                asked_ssl = true;
                let before = stream.is_tls();
                stream = answer_ssl(stream, tls).await?;
                asked_gss |= stream.is_tls() && !before;
            }
            Ok(FirstPacket::GssEnc) if !asked_gss => {
                asked_gss = true;
                stream.write_all(b"N").await?;
                stream.flush().await?;
            }
            packet => return finish(packet, stream, tls_required).await,
        }
    }
}

async fn direct_tls(stream: Stream, tls: Option<&ClientTls>) -> Result<Stream, GreetError> {
    match (stream, tls) {
        (Stream::Tcp(tcp), Some(tls)) => {
            let mut first = [0];
            if tcp.peek(&mut first).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            if first == [TLS_HANDSHAKE] {
                return Ok(tls.accept_direct(tcp).await?);
            }
            Ok(Stream::Tcp(tcp))
        }
        (stream, _) => Ok(stream),
    }
}

async fn answer_ssl(stream: Stream, tls: Option<&ClientTls>) -> Result<Stream, GreetError> {
    match (stream, tls) {
        // Only this one byte has been asked for, so whatever was smuggled in behind the request in plain text goes to
        // the handshake and breaks it (CVE-2021-23214).
        (Stream::Tcp(mut tcp), Some(tls)) => {
            tcp.write_all(b"S").await?;
            Ok(tls.accept(tcp).await?)
        }
        (mut stream, _) => {
            stream.write_all(b"N").await?;
            stream.flush().await?;
            Ok(stream)
        }
    }
}

async fn read_packet(stream: &mut Stream) -> Result<FirstPacket, GreetError> {
    let mut packet = vec![0; 4];
    stream.read_exact(&mut packet).await?;
    let len = startup::peek_len(&packet)?.unwrap_or(4);
    packet.resize(len, 0);
    stream.read_exact(packet.get_mut(4..).unwrap_or_default()).await?;
    Ok(startup::parse(&packet)?)
}

async fn finish(
    packet: Result<FirstPacket, GreetError>,
    mut stream: Stream,
    tls_required: bool,
) -> Result<Greeting, GreetError> {
    match packet {
        Ok(FirstPacket::Cancel(key)) => Ok(Greeting::Cancel { stream, key }),
        Ok(FirstPacket::Startup(startup)) => {
            if tls_required && !stream.is_tls() && !stream.is_unix() {
                refuse(&mut stream, Report::fatal("28000", "this server accepts TLS connections only")).await;
                return Err(GreetError::TlsRequired);
            }
            let startup = negotiate(&mut stream, startup).await?;
            Ok(Greeting::Session { stream, startup })
        }
        // What a server takes for a version then, it says.
        Ok(FirstPacket::Ssl) => twice(stream, ProtocolVersion::SSL).await,
        Ok(FirstPacket::GssEnc) => twice(stream, ProtocolVersion::GSSENC).await,
        Err(GreetError::Startup(error)) => {
            let sqlstate = match error {
                StartupError::UnsupportedVersion(_) => "0A000",
                _ => "08P01",
            };
            refuse(&mut stream, Report::fatal(sqlstate, error.to_string())).await;
            Err(error.into())
        }
        Err(error) => Err(error),
    }
}

async fn twice(mut stream: Stream, version: ProtocolVersion) -> Result<Greeting, GreetError> {
    let error = StartupError::UnsupportedVersion(version);
    refuse(&mut stream, Report::fatal("0A000", error.to_string())).await;
    Err(GreetError::EncryptionTwice)
}

/// Settles on 3.2 at most and on no protocol options, and says so where the client asked for something else, in the words of
/// PostgreSQL 18. The version given back is 3.0 or 3.2: there is nothing in 3.1, which 18 takes as it is.
async fn negotiate(stream: &mut Stream, mut startup: StartupMessage) -> Result<StartupMessage, GreetError> {
    let newest = startup.version.min(ProtocolVersion::V3_2);
    let unrecognized: Vec<&[u8]> = startup.protocol_options().collect();
    if newest != startup.version || !unrecognized.is_empty() {
        let message = NegotiateProtocolVersion { newest, unrecognized };
        let mut out = bytes::BytesMut::new();
        message.encode(&mut out);
        stream.write_all(&out).await?;
        stream.flush().await?;
    }
    startup.version = if newest < ProtocolVersion::V3_2 { ProtocolVersion::V3_0 } else { newest };
    startup.params.retain(|param| !param.name.starts_with(startup::PROTOCOL_OPTION));
    Ok(startup)
}

/// Tells a client why it is refused; that it is gone already does not matter then.
pub(super) async fn refuse(stream: &mut Stream, report: Report) {
    let mut out = bytes::BytesMut::new();
    report.encode(&mut out);
    if stream.write_all(&out).await.is_ok() {
        let _ = stream.flush().await;
    }
}
