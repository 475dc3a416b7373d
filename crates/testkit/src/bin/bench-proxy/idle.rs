//! Idle sessions: each has logged in, has said one query and says nothing more. Owns the clients; refuses to measure.

use std::io::{Error, ErrorKind};
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use futures::stream;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::arena::{DATABASE, TRUSTED};
use crate::frames;

/// Logins under way at the same time: nobody's queue of connections is shorter.
const AT_ONCE: usize = 64;

/// One login, when 64 are under way on a busy machine.
const LOGIN_LIMIT: Duration = Duration::from_secs(30);

/// Descriptors that a proxy needs besides two for each session.
const SPARE: u64 = 200;

/// Raises our limit of descriptors, and so that of all we start, to what this machine grants; returns how many of
/// `wanted` sessions a proxy can have then, two descriptors each.
pub(crate) fn make_room(wanted: usize) -> Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    let needed = wanted as u64 * 2 + SPARE;
    // Only who may raises the hard limit; the soft one anybody.
    let hard = limit.maximum.map(|hard| hard.max(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
    let granted = match raised {
        Ok(()) => hard,
        Err(_) => {
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).context("descriptors")?;
            limit.maximum
        }
    };
    let room = granted.map_or(wanted as u64, |granted| granted.saturating_sub(SPARE) / 2);
    ensure!(room > 0, "the limit of {granted:?} descriptors leaves no room for sessions");
    Ok(wanted.min(usize::try_from(room)?))
}

/// Opens sessions; they stay open as long as what is returned.
pub(crate) async fn open(port: u16, number: usize) -> Result<Vec<TcpStream>> {
    let mut sessions = Vec::with_capacity(number);
    let mut opening = stream::iter(0..number).map(|_| bounded(port)).buffer_unordered(AT_ONCE);
    while let Some(session) = opening.next().await {
        sessions.push(session.with_context(|| format!("session {} of {number}", sessions.len() + 1))?);
    }
    Ok(sessions)
}

/// How many have been told something, or been closed.
pub(crate) fn ended(sessions: &[TcpStream]) -> usize {
    let rests = |session: &&TcpStream| {
        let said = session.try_read(&mut [0]);
        said.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    sessions.len() - sessions.iter().filter(rests).count()
}

async fn bounded(port: u16) -> Result<TcpStream> {
    let login = tokio::time::timeout(LOGIN_LIMIT, begin(port)).await;
    Ok(login.with_context(|| format!("not logged in within {LOGIN_LIMIT:?}"))??)
}

async fn begin(port: u16) -> Result<TcpStream, Error> {
    let mut session = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    session.write_all(&frames::startup(&[("user", TRUSTED), ("database", DATABASE)])).await?;
    until_ready(&mut session).await?;
    let mut query = Vec::new();
    frames::put(&mut query, b'Q', b"SELECT 1\0");
    session.write_all(&query).await?;
    until_ready(&mut session).await?;
    Ok(session)
}

/// Reads up to `ReadyForQuery`.
async fn until_ready(session: &mut TcpStream) -> Result<(), Error> {
    loop {
        match frames::message(session).await? {
            (b'Z', _) => return Ok(()),
            (b'E', body) => {
                let said = String::from_utf8_lossy(&body).replace('\0', " ");
                return Err(Error::new(ErrorKind::ConnectionRefused, said));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn who_is_closed_or_spoken_to_does_not_rest() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            ours.push(TcpStream::connect(address).await.unwrap());
            theirs.push(listener.accept().await.unwrap().0);
        }
        assert_eq!(ended(&ours), 0);
        drop(theirs.pop());
        theirs[0].write_all(b"N").await.unwrap();
        ours[2].readable().await.unwrap();
        ours[0].readable().await.unwrap();
        assert_eq!(ended(&ours), 2);
        // The one that rests still works.
        theirs[1].write_all(b"x").await.unwrap();
        assert_eq!(ours[1].read_u8().await.unwrap(), b'x');
    }
}
