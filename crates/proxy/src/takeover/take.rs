//! Owns the side of a takeover that takes: asking, what was inherited, and following what the predecessor says until it is gone.
//! Refuses to serve.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;

use super::talk::{Ask, Ear, Name, Tell, VERSION, Voice, ends};
use super::{Predecessor, TakeoverError, socket_beside};
use crate::gate::Former;
use crate::shared::Shared;

/// How long the predecessor may take for an answer: somebody else's conversation may be under way.
const TO_ANSWER: Duration = Duration::from_secs(15);

/// What has become of asking.
#[derive(Debug)]
pub(crate) enum Asked {
    /// Its sockets came.
    Given(Box<Inheritance>),
    /// Somebody was there, and hands nothing over any more: its state file is free when it is gone.
    Ending,
    /// Nobody is there, as far as can be known.
    Nobody,
}

/// What a predecessor has handed over, or is about to.
#[derive(Debug)]
pub(crate) struct Inheritance {
    path: PathBuf,
    voice: Arc<Voice>,
    ear: Ear,
    /// The state file, with its lock.
    pub(crate) state: File,
    /// The socket by which we shall be taken over.
    pub(crate) control: OwnedFd,
    /// The highest epoch that it has seen.
    pub(crate) epoch: u64,
    /// Whether it took the side that transactions go to for fenced, perhaps.
    pub(crate) at_risk: bool,
    sockets: Vec<(Name, OwnedFd)>,
}

impl Inheritance {
    /// Asks the proxy with this state file for its sockets.
    pub(crate) async fn ask(state_file: &Path) -> Result<Asked, TakeoverError> {
        let path = socket_beside(state_file);
        let broken = |reason: String| TakeoverError::Broken { path: path.clone(), reason };
        let stream = match UnixStream::connect(&path).await {
            Ok(stream) => stream,
            Err(error) => {
                return match error.kind() {
                    // The last is a path too long for a socket: nobody can listen there.
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidInput => Ok(Asked::Nobody),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Ok(Asked::Ending),
                    _ => Err(broken(error.to_string())),
                };
            }
        };
        let peer = stream.peer_cred().map(|cred| cred.uid()).map_err(|error| broken(error.to_string()))?;
        if peer != rustix::process::geteuid().as_raw() && peer != 0 {
            return Err(broken(format!("it is a process of another user's, {peer}")));
        }
        let (voice, mut ear) = ends(stream);
        if let Err(error) = voice.say(&Ask::Take { version: VERSION }).await {
            // It may have said why before it closed.
            tracing::debug!(%error, "the predecessor");
        }
        let (epoch, at_risk, names) = match hear(&mut ear, &path).await? {
            Some(Tell::Sockets { version: VERSION, epoch, at_risk, names }) => (epoch, at_risk, names),
            Some(Tell::Refused { reason }) => return Err(TakeoverError::Refused(reason)),
            Some(other) => return Err(broken(format!("it said {other:?}"))),
            None => return Ok(Asked::Ending),
        };
        let mut descriptors = VecDeque::from(ear.descriptors());
        let (Some(state), Some(control)) = (descriptors.pop_front(), descriptors.pop_front()) else {
            return Err(broken("no descriptors came".into()));
        };
        if descriptors.len() != names.len() {
            return Err(broken("not every socket came".into()));
        }
        let sockets = names.into_iter().zip(descriptors).collect();
        let state = File::from(state);
        Ok(Asked::Given(Box::new(Self { path, voice, ear, state, control, epoch, at_risk, sockets })))
    }

    /// The listening socket of this name.
    pub(crate) fn socket(&mut self, name: &Name) -> Option<OwnedFd> {
        let place = self.sockets.iter().position(|(inherited, _)| inherited == name)?;
        Some(self.sockets.remove(place).1)
    }

    /// Says that this process could serve, and answers when it is to: who served before; `None` when that process has died, and
    /// there is nobody but us.
    pub(crate) async fn accept(mut self) -> Result<Option<Legacy>, TakeoverError> {
        let said = self.voice.say(&Ask::Ready).await;
        if let Err(error) = &said {
            tracing::debug!(%error, "the predecessor");
        }
        match hear(&mut self.ear, &self.path).await? {
            Some(Tell::Yours { pid, epoch, connections }) => {
                self.forget_sockets();
                let (predecessor, former) = (Predecessor::new(self.voice), Former { pid, connections });
                Ok(Some(Legacy { predecessor, ear: self.ear, former, epoch }))
            }
            Some(Tell::Refused { reason }) => Err(TakeoverError::Refused(reason)),
            Some(other) => {
                Err(TakeoverError::Broken { path: self.path, reason: format!("it said {other:?}") })
            }
            // So it is with what was not heard when it died.
            None => {
                tracing::warn!("the predecessor died while it was taken over");
                self.forget_sockets();
                Ok(None)
            }
        }
    }

    /// Nobody listens any more where our configuration says nothing.
    fn forget_sockets(&mut self) {
        for (name, _) in self.sockets.drain(..) {
            tracing::info!(?name, "not listened on any more");
            if let Name::Unix(path) = name {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

async fn hear(ear: &mut Ear, path: &Path) -> Result<Option<Tell>, TakeoverError> {
    match tokio::time::timeout(TO_ANSWER, ear.hear()).await {
        Ok(Ok(told)) => Ok(told),
        Ok(Err(error)) => Err(TakeoverError::Broken { path: path.to_owned(), reason: error.to_string() }),
        Err(_) => Err(TakeoverError::Silent { path: path.to_owned(), limit: TO_ANSWER }),
    }
}

/// A predecessor that has handed over.
#[derive(Debug)]
pub(crate) struct Legacy {
    predecessor: Arc<Predecessor>,
    ear: Ear,
    former: Former,
    /// The highest epoch that it has seen to the end.
    epoch: u64,
}

impl Legacy {
    /// Nobody is held here while it lives. To be called before anybody comes in.
    pub(crate) fn begin(&self, shared: &Shared) {
        shared.gate.follow(Some(self.former));
        // Stale: we know a higher one by the state file.
        let _ = shared.gate.claim(self.epoch);
        shared.takeover.set_predecessor(Some(Arc::clone(&self.predecessor)));
    }
}

/// Hears what the predecessor says until it is gone.
pub(crate) async fn follow(shared: Arc<Shared>, legacy: Legacy) {
    let Legacy { predecessor, mut ear, former, .. } = legacy;
    loop {
        match ear.hear().await {
            Ok(Some(Tell::Left { connections })) => {
                shared.gate.follow(Some(Former { connections, ..former }))
            }
            Ok(Some(Tell::Done { id })) => predecessor.done(id),
            Ok(Some(other)) => tracing::warn!(?other, "the predecessor says what it should not"),
            Ok(None) => break,
            Err(error) => {
                // It may live, and nobody knows how many it serves: as many as before, until it closes.
                tracing::warn!(%error, "the predecessor is not understood");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    shared.takeover.set_predecessor(None);
    shared.gate.follow(None);
    predecessor.gone();
    tracing::info!("the predecessor is gone");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::os::fd::AsFd as _;

    use tokio::net::UnixListener;

    use super::*;

    /// A predecessor that plays its part as far as `ends_after` says, and dies.
    async fn predecessor(state: &Path, sockets: &std::net::TcpListener, reads_ready: bool) {
        let listener = UnixListener::bind(socket_beside(state)).unwrap();
        let (voice, mut ear) = ends(listener.accept().await.unwrap().0);
        assert!(matches!(ear.hear().await.unwrap(), Some(Ask::Take { version: VERSION })));
        let names = vec![Name::Tcp(sockets.local_addr().unwrap())];
        let file = File::create(state).unwrap();
        let descriptors = [file.as_fd(), listener.as_fd(), sockets.as_fd()];
        let sockets = Tell::Sockets { version: VERSION, epoch: 3, at_risk: true, names };
        voice.say_with(&sockets, &descriptors).await.unwrap();
        if reads_ready {
            assert!(matches!(ear.hear().await.unwrap(), Some(Ask::Ready)));
        }
    }

    #[tokio::test]
    async fn a_predecessor_that_says_nothing_and_closes_is_about_to_end() {
        for reads in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let state = directory.path().join("state");
            let listener = UnixListener::bind(socket_beside(&state)).unwrap();
            let closing = async {
                if reads {
                    let (_voice, mut ear) = ends(listener.accept().await.unwrap().0);
                    assert!(matches!(ear.hear().await.unwrap(), Some(Ask::Take { .. })));
                }
                drop(listener);
            };
            let (asked, ()) = tokio::join!(Inheritance::ask(&state), closing);
            assert!(matches!(asked.unwrap(), Asked::Ending));
            assert!(
                matches!(Inheritance::ask(&state).await.unwrap(), Asked::Ending),
                "its socket is left over"
            );
        }
    }

    #[tokio::test]
    async fn a_predecessor_that_dies_after_it_has_sent_its_sockets_leaves_them() {
        for reads_ready in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let state = directory.path().join("state");
            assert!(matches!(Inheritance::ask(&state).await.unwrap(), Asked::Nobody));
            let sockets = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = sockets.local_addr().unwrap();
            let dying = predecessor(&state, &sockets, reads_ready);
            let taking = async {
                let path = socket_beside(&state);
                while !path.exists() {
                    tokio::task::yield_now().await;
                }
                let asked = Inheritance::ask(&state).await.unwrap();
                let Asked::Given(mut inherited) = asked else { panic!("{asked:?}") };
                assert_eq!((inherited.epoch, inherited.at_risk), (3, true));
                assert!(inherited.socket(&Name::Unix("/elsewhere".into())).is_none());
                let socket = inherited.socket(&Name::Tcp(address)).unwrap();
                (inherited.accept().await.unwrap().is_none(), std::net::TcpListener::from(socket))
            };
            let ((), (is_alone, socket)) = tokio::join!(dying, taking);
            assert!(is_alone, "a dead process serves");
            drop(sockets);
            std::net::TcpStream::connect(address).unwrap();
            socket.accept().unwrap();
        }
    }
}
