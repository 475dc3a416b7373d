//! Owns how two proxy processes speak while one takes over from the other: lines of JSON over a Unix socket, some with
//! descriptors. Refuses to know when what is said.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The version of what is said. Processes of different versions do not take over from each other.
pub(super) const VERSION: u32 = 1;
/// The longest line.
const LONGEST: usize = 256 * 1024;
/// The most descriptors that the system passes at once (SCM_MAX_FD of Linux).
pub(super) const MOST_DESCRIPTORS: usize = 253;
/// How long one line may take to be written: the other reads all the time, or is gone.
const TO_SAY: Duration = Duration::from_secs(5);

/// What the new process says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// It wants the sockets.
    Take { version: u32 },
    /// It could serve.
    Ready,
    /// A client has sent a cancel request with this key.
    Cancel { id: u64, pid: i32, secret: Vec<u8> },
}

/// What the old process says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Tell {
    /// It goes on as before.
    Refused { reason: String },
    /// The sockets, with their descriptors: first that of the state file, with its lock, then the socket of takeovers, then
    /// these.
    Sockets { version: u32, epoch: u64, at_risk: bool, names: Vec<Name> },
    /// From here on it accepts nobody and writes no state.
    Yours { pid: u32, epoch: u64, connections: usize },
    /// So many connections are left.
    Left { connections: usize },
    /// The cancel request has arrived, or can not.
    Done { id: u64 },
}

/// A listening socket, by what the configuration says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Name {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The end that speaks.
#[derive(Debug)]
pub(super) struct Voice {
    stream: Arc<UnixStream>,
    /// Lines do not mix.
    turn: tokio::sync::Mutex<()>,
}

/// The end that hears.
#[derive(Debug)]
pub(super) struct Ear {
    stream: Arc<UnixStream>,
    heard: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

pub(super) fn ends(stream: UnixStream) -> (Arc<Voice>, Ear) {
    let stream = Arc::new(stream);
    let voice = Arc::new(Voice { stream: Arc::clone(&stream), turn: tokio::sync::Mutex::default() });
    (voice, Ear { stream, heard: Vec::new(), descriptors: Vec::new() })
}

impl Voice {
    pub(super) async fn say(&self, message: &impl Serialize) -> io::Result<()> {
        self.say_with(message, &[]).await
    }

    pub(super) async fn say_with(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let said = async {
            let _turn = self.turn.lock().await;
            let (mut rest, mut descriptors) = (&line[..], descriptors);
            while !rest.is_empty() {
                let send = || send(&self.stream, rest, descriptors);
                let sent = self.stream.async_io(Interest::WRITABLE, send).await?;
                rest = rest.get(sent..).unwrap_or_default();
                descriptors = &[];
            }
            Ok(())
        };
        tokio::time::timeout(TO_SAY, said).await?
    }
}

fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let message = SendAncillaryMessage::ScmRights(descriptors);
    let mut space = vec![MaybeUninit::uninit(); message.size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if descriptors.len() > MOST_DESCRIPTORS || (!descriptors.is_empty() && !control.push(message)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many listening sockets to pass on at once",
        ));
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

impl Ear {
    /// The next line; `None` when the other end is closed, which it is too when its process is gone.
    pub(super) async fn hear<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            if self.heard.len() > LONGEST {
                self.heard.clear();
                return Err(io::ErrorKind::InvalidData.into());
            }
            let stream = Arc::clone(&self.stream);
            let (heard, descriptors) = (&mut self.heard, &mut self.descriptors);
            let received = stream.async_io(Interest::READABLE, || receive(&stream, heard, descriptors)).await;
            match received {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                // What was not read when the process went.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// The descriptors that have come.
    pub(super) fn descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }
}

fn receive(stream: &UnixStream, heard: &mut Vec<u8>, descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            descriptors.extend(came);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("descriptors were lost on the way: too many are open"));
    }
    heard.extend_from_slice(bytes.get(..received.bytes).unwrap_or_default());
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::os::fd::AsFd as _;

    use super::*;

    #[tokio::test]
    async fn lines_and_descriptors_come_as_they_were_sent() {
        let (one, other) = UnixStream::pair().unwrap();
        let ((voice, ear), (_, mut other)) = (ends(one), ends(other));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let names: Vec<_> = (0..200).map(|n| Name::Unix(format!("/a/long/path/{n}").into())).collect();
        let sockets = Tell::Sockets { version: VERSION, epoch: 7, at_risk: true, names: names.clone() };
        let same: Vec<_> = names.iter().map(|_| listener.as_fd()).collect();
        let (said, heard) = tokio::join!(voice.say_with(&sockets, &same), other.hear::<Tell>());
        said.unwrap();
        let Some(Tell::Sockets { epoch: 7, names: came, .. }) = heard.unwrap() else {
            panic!("another line")
        };
        assert_eq!(came, names);
        let came = other.descriptors();
        assert_eq!(came.len(), names.len());
        let last = std::net::TcpListener::from(came.into_iter().next_back().unwrap());
        assert_eq!(last.local_addr().unwrap(), listener.local_addr().unwrap());
        let many: Vec<_> = (0..=MOST_DESCRIPTORS).map(|_| listener.as_fd()).collect();
        assert!(voice.say_with(&Tell::Done { id: 1 }, &many).await.is_err());
        voice.say(&Tell::Done { id: 2 }).await.unwrap();
        assert!(matches!(other.hear().await.unwrap(), Some(Tell::Done { id: 2 })));
        drop((voice, ear));
        assert!(other.hear::<Tell>().await.unwrap().is_none());
    }
}
