//! Owns the side of a takeover that gives: who may ask, what is handed over, and what is left to tell the successor.
//! Refuses to end sessions.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgteal_wire::cancel::CancelKey;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

use super::talk::{Ask, Ear, Tell, VERSION, Voice, ends};
use super::{Successor, draining};
use crate::cancel;
use crate::shards::Entrance;
use crate::shared::Shared;

/// How long who connects may take to say what it wants.
const TO_ASK: Duration = Duration::from_secs(5);
/// How long it may take from there until it could serve.
const TO_BE_READY: Duration = Duration::from_secs(10);
/// How often the successor is told how many connections are left, when that has changed.
const NEWS: Duration = Duration::from_millis(250);
/// Cancel requests of the successor that are under way at once; further ones wait.
const CANCELS: usize = 64;

/// Listens where a process can ask. Without that the proxy serves all the same, and cannot be taken over.
pub(crate) fn listen(path: &Path) -> Option<UnixListener> {
    // Left over from a process that was killed: whoever has the state file is alone here.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).and_then(|listener| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    });
    listener.map_err(|error| tracing::warn!(path = %path.display(), %error, "cannot be taken over")).ok()
}

/// Answers who wants to take over, until somebody has or the proxy stops: a conversation under way comes to its end first.
pub(crate) async fn offer(
    shared: Arc<Shared>,
    entrance: Arc<Entrance>,
    listener: UnixListener,
    stop: watch::Sender<bool>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&stop) => return,
            accepted = listener.accept() => accepted,
        };
        let given = match accepted {
            Ok((stream, _)) => give(&shared, &entrance, &listener, stream, &stop).await,
            Err(error) => Err(error),
        };
        match given {
            Ok(Some(successor)) => {
                shared.takeover.succeeded_by(successor);
                shared.takeover.over.send_replace(true);
                shared.takeover.listens_no_more();
                shared.recorder.close();
                shared.warm_side.set(None);
                stop.send_replace(true);
                tracing::info!("another process serves from now on");
                return;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "not taken over");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn stopped(stop: &watch::Sender<bool>) {
    // Never an error: we have the sender.
    let _ = stop.subscribe().wait_for(|stop| *stop).await;
}

/// One conversation up to the handover. `None`: nothing has changed.
async fn give(
    shared: &Shared,
    entrance: &Entrance,
    listener: &UnixListener,
    stream: UnixStream,
    stop: &watch::Sender<bool>,
) -> io::Result<Option<Successor>> {
    let (peer, us) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    let (voice, mut ear) = ends(stream);
    let refuse = async |reason: String| {
        tracing::warn!(reason, "a takeover is refused");
        voice.say(&Tell::Refused { reason }).await.map(|()| None)
    };
    if peer != us && peer != 0 {
        return refuse(format!("it is a process of another user's, {peer}")).await;
    }
    let asked = tokio::select! {
        biased;
        () = stopped(stop) => return Ok(None),
        asked = tokio::time::timeout(TO_ASK, ear.hear()) => asked??,
    };
    // Who only looks whether we live says nothing.
    let Some(Ask::Take { version }) = asked else { return Ok(None) };
    if version != VERSION {
        return refuse(format!("it speaks version {VERSION} of the takeover, not {version}")).await;
    }
    if let Err(error) = shared.gate.stand_down() {
        return refuse(error.to_string()).await;
    }
    let handed =
        tokio::time::timeout(TO_BE_READY, hand_over(shared, entrance, listener, &voice, &mut ear)).await;
    let failed = match handed {
        Ok(Ok(mark)) => return Ok(Some(Successor { voice, ear, _mark: mark })),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it was not ready to serve within {TO_BE_READY:?}"),
    };
    shared.takeover.lend(false);
    shared.recorder.resume();
    shared.gate.stand_up();
    refuse(failed).await
}

async fn hand_over(
    shared: &Shared,
    entrance: &Entrance,
    listener: &UnixListener,
    voice: &Voice,
    ear: &mut Ear,
) -> io::Result<File> {
    let mark = draining::mark(&shared.config.state_file).await?;
    let state = shared.recorder.share().map_err(io::Error::other)?;
    let mut handed = VecDeque::new();
    for (name, socket) in &*shared.takeover.sockets() {
        handed.push_back((name.clone(), socket.try_clone()?));
    }
    let names = handed.iter().map(|(name, _)| name.clone()).collect();
    let (epoch, at_risk) = (shared.gate.view().epoch, shared.gate.is_at_risk());
    let mut descriptors = vec![state.as_fd(), listener.as_fd()];
    descriptors.extend(handed.iter().map(|(_, socket)| socket.as_fd()));
    // From here on it could serve, whatever becomes of us.
    shared.takeover.lend(true);
    voice.say_with(&Tell::Sockets { version: VERSION, epoch, at_risk, names }, &descriptors).await?;
    match ear.hear().await? {
        Some(Ask::Ready) => {}
        other => return Err(io::Error::other(format!("it went away before it could serve ({other:?})"))),
    }
    shared.recorder.retire();
    // When it is gone by now, we go on. Until we stop both accept, from the same queues.
    let (pid, epoch) = (std::process::id(), shared.gate.view().epoch);
    voice.say(&Tell::Yours { pid, epoch, connections: left(shared, entrance) }).await?;
    Ok(mark)
}

/// Connections that are not over, those of processes before included.
fn left(shared: &Shared, entrance: &Entrance) -> usize {
    entrance.living() + shared.gate.of_predecessor().unwrap_or(0)
}

/// Tells the successor how many are left, and does its cancel requests, as long as both live.
pub(crate) async fn tell(shared: Arc<Shared>, entrance: Arc<Entrance>, mut successor: Successor) {
    let (voice, ear) = (&successor.voice, &mut successor.ear);
    let places = Arc::new(Semaphore::new(CANCELS));
    let hear = async {
        while let Ok(Some(Ask::Cancel { id, pid, secret })) = ear.hear().await {
            // Never refused: nobody closes the semaphore.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let (shared, voice) = (Arc::clone(&shared), Arc::clone(voice));
            tokio::spawn(async move {
                if let Ok(key) = CancelKey::new(pid, &secret) {
                    cancel::pass_on(&shared, &key).await;
                }
                let _ = voice.say(&Tell::Done { id }).await;
                drop(place);
            });
        }
    };
    let news = async {
        let mut told = None;
        loop {
            let connections = left(&shared, &entrance);
            if told.replace(connections) != Some(connections)
                && voice.say(&Tell::Left { connections }).await.is_err()
            {
                return;
            }
            tokio::time::sleep(NEWS).await;
        }
    };
    tokio::select! {
        () = hear => {}
        () = news => {}
    }
    tracing::info!("the successor is gone");
    shared.takeover.alone.send_replace(true);
    // The mark stays.
    std::future::pending().await
}
