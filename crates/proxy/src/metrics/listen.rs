//! Owns the conversation with who reads the metrics: one `GET /metrics` per connection, HTTP/1.1, everything bounded: the size
//! of a request, the time of a conversation, how many there are at once. Refuses to know what the page says.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::text::CONTENT_TYPE;
use crate::shared::Shared;

/// Conversations at once; who comes then waits in the kernel's queue.
const AT_ONCE: usize = 16;
/// The longest conversation.
const LIMIT: Duration = Duration::from_secs(5);
/// The longest request.
const LONGEST: usize = 8 * 1024;

/// Answers until told to stop.
pub(crate) async fn listen(shared: Arc<Shared>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let next = async {
            // Never refused: nobody closes the semaphore.
            let place = Arc::clone(&places).acquire_owned().await.map_err(std::io::Error::other)?;
            listener.accept().await.map(|(stream, _)| (stream, place))
        };
        let (stream, place) = tokio::select! {
            next = next => match next {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept who reads the metrics");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            _ = stop.changed() => return,
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(LIMIT, converse(&shared, stream)).await;
            drop(place);
        });
    }
}

async fn converse(shared: &Shared, mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    let asked = loop {
        if let Some(asked) = request(&head) {
            break asked;
        }
        let mut chunk = [0; 1024];
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return Ok(());
        }
        head.extend_from_slice(chunk.get(..count).unwrap_or_default());
    };
    stream.write_all(answer(asked, || super::page(shared)).as_bytes()).await?;
    stream.shutdown().await?;
    // What was sent beyond the request is read to its end, for otherwise its sender may lose the answer.
    let mut sink = [0; 1024];
    while stream.read(&mut sink).await? > 0 {}
    Ok(())
}

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Metrics,
    Elsewhere,
    OtherMethod,
    TooMuch,
    Nonsense,
}

/// Reads a request; `None` while its end is not there.
fn request(head: &[u8]) -> Option<Asked> {
    let end = head.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    if end.unwrap_or(head.len()) > LONGEST {
        return Some(Asked::TooMuch);
    }
    let line = head.get(..end?)?.split(|byte| *byte == b'\r').next()?;
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    Some(match words.as_slice() {
        [method, path, b"HTTP/1.1" | b"HTTP/1.0"] => {
            let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
            match (*method, path) {
                (b"GET", b"/metrics") => Asked::Metrics,
                (b"GET", _) => Asked::Elsewhere,
                _ => Asked::OtherMethod,
            }
        }
        _ => Asked::Nonsense,
    })
}

fn answer(asked: Asked, page: impl FnOnce() -> String) -> String {
    let (status, more, body) = match asked {
        Asked::Metrics => ("200 OK", "", page()),
        Asked::Elsewhere => ("404 Not Found", "", "there is only /metrics\n".into()),
        Asked::OtherMethod => ("405 Method Not Allowed", "Allow: GET\r\n", "only GET\n".into()),
        Asked::TooMuch => ("431 Request Header Fields Too Large", "", "too long a request\n".into()),
        Asked::Nonsense => ("400 Bad Request", "", "no request of HTTP/1.1\n".into()),
    };
    let (kind, length) = (if asked == Asked::Metrics { CONTENT_TYPE } else { "text/plain" }, body.len());
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{more}Connection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_strictly() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(LONGEST));
        for (head, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Some(Asked::Metrics)),
            ("GET /metrics?name=x HTTP/1.0\r\n\r\n", Some(Asked::Metrics)),
            ("GET / HTTP/1.1\r\n\r\n", Some(Asked::Elsewhere)),
            ("POST /metrics HTTP/1.1\r\n\r\nbody", Some(Asked::OtherMethod)),
            ("GET /metrics HTTP/2\r\n\r\n", Some(Asked::Nonsense)),
            ("GET  /metrics HTTP/1.1\r\n\r\n", Some(Asked::Nonsense)),
            ("\0\0\0\x08\x04\x52\x16\x2f\r\n\r\n", Some(Asked::Nonsense)),
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n", None),
            ("", None),
            (&long, Some(Asked::TooMuch)),
            (&long[..LONGEST + 1], Some(Asked::TooMuch)),
        ] {
            assert_eq!(request(head.as_bytes()), expected, "{}", &head[..head.len().min(50)]);
        }
        let page = answer(Asked::Metrics, || "a 1\n".into());
        assert!(page.ends_with("Content-Length: 4\r\nConnection: close\r\n\r\na 1\n"), "{page}");
    }
}
