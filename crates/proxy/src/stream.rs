//! Owns the byte streams of both legs: TCP, Unix socket, TLS on either end.
//! Refuses to know what the bytes mean.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::CertificateDer;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
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

/// Whether the runtime will wake a task when a stream has something to be read. It keeps that in mind from one asking to
/// the next event, so to ask at every poll is for nothing; and a session polls both its legs whenever one of them wakes it.
///
/// True for one task and one stream, and only while nobody else reads from it.
#[derive(Debug, Default)]
pub struct Readable {
    /// The runtime was asked, and there was nothing to read since.
    awaited: bool,
}

impl Readable {
    /// Ready when a read may find something.
    pub fn poll(&mut self, cx: &mut Context<'_>, stream: &Stream) -> Poll<()> {
        let ready = match stream {
            Stream::Tcp(stream) => stream.try_io(Interest::READABLE, || Ok(())).is_ok(),
            Stream::Unix(stream) => stream.try_io(Interest::READABLE, || Ok(())).is_ok(),
            // There may be something that was decrypted already.
            Stream::ServerTls(..) | Stream::ClientTls(_) => true,
        };
        if ready {
            self.awaited = false;
            return Poll::Ready(());
        }
        if self.awaited {
            return Poll::Pending;
        }
        let polled = match stream {
            Stream::Tcp(stream) => stream.poll_read_ready(cx),
            Stream::Unix(stream) => stream.poll_read_ready(cx),
            Stream::ServerTls(..) | Stream::ClientTls(_) => return Poll::Ready(()),
        };
        self.awaited = polled.is_pending();
        // What is wrong with it, the read will tell.
        polled.map(drop)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// However often it is asked, and whatever is left unread, the task is woken for the next byte.
    #[tokio::test]
    async fn a_stream_that_was_asked_once_wakes_its_reader() {
        tokio::time::timeout(Duration::from_secs(20), is_woken()).await.expect("woken for every byte");
    }

    async fn is_woken() {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        let mut ours = Stream::Unix(ours);
        let mut readable = Readable::default();
        for round in 0..100_u8 {
            for _ in 0..3 {
                let polled = std::future::poll_fn(|cx| Poll::Ready(readable.poll(cx, &ours))).await;
                assert!(polled.is_pending(), "there is nothing yet");
            }
            let says = async {
                tokio::task::yield_now().await;
                peer.write_all(&[round, round]).await.unwrap();
            };
            let hears = std::future::poll_fn(|cx| readable.poll(cx, &ours));
            tokio::join!(says, hears);
            assert!(std::future::poll_fn(|cx| Poll::Ready(readable.poll(cx, &ours))).await.is_ready());
            if round % 2 == 0 {
                // A read that finds less than it has room for says that there is no more.
                assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 2);
                continue;
            }
            for _ in 0..2 {
                assert!(std::future::poll_fn(|cx| Poll::Ready(readable.poll(cx, &ours))).await.is_ready());
                assert_eq!(ours.read(&mut [0]).await.unwrap(), 1);
            }
            // What is believed to be there and is not, a read finds out.
            let mut buf = [0; 8];
            let mut found = |cx: &mut Context<'_>| {
                let mut buf = ReadBuf::new(&mut buf);
                Poll::Ready(Pin::new(&mut ours).poll_read(cx, &mut buf).is_pending())
            };
            assert!(std::future::poll_fn(&mut found).await);
        }
        drop(peer);
        std::future::poll_fn(|cx| readable.poll(cx, &ours)).await;
        assert_eq!(ours.read(&mut [0]).await.unwrap(), 0);
    }
}
