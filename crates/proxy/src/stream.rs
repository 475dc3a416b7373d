//! Owns the byte streams of both legs: TCP, Unix socket, TLS on either end.
//! Refuses to know what the bytes mean.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// One connection, whatever carries it.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// Unix socket.
    Unix(UnixStream),
    /// TLS with a client: we show the certificate, whose tls-server-end-point data (if its algorithm has such a hash) is that of
    /// this very handshake, whatever is shown to others by now.
    ServerTls(Box<tokio_rustls::server::TlsStream<TcpStream>>, Option<Arc<[u8]>>),
    /// TLS with a server: it shows the certificate.
    ClientTls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether the bytes are encrypted.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        matches!(self, Self::ServerTls(..) | Self::ClientTls(_))
    }

    /// Whether it is a Unix socket.
    #[must_use]
    pub const fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// What a client's login on this connection may be bound to.
    #[must_use]
    pub fn end_point(&self) -> Option<&[u8]> {
        match self {
            Self::ServerTls(_, end_point) => end_point.as_deref(),
            _ => None,
        }
    }

    /// Whether the system has neither bytes nor the end of the connection for us.
    #[must_use]
    pub fn has_nothing_to_read(&self) -> bool {
        let socket = match self {
            Self::Tcp(stream) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
            Self::ServerTls(stream, _) => SockRef::from(stream.get_ref().0),
            Self::ClientTls(stream) => SockRef::from(stream.get_ref().0),
        };
        let peeked = socket.peek(&mut [MaybeUninit::uninit()]);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The certificate that a client has shown; it has been verified up to a root.
    #[must_use]
    pub fn client_certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::ServerTls(tls, _) => tls.get_ref().1.peer_certificates()?.first(),
            _ => None,
        }
    }
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::ServerTls($stream, _) => $call,
            Stream::ClientTls($stream) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
