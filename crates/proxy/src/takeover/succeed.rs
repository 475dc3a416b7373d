//! Owns the start of a proxy that takes over from another one. Refuses to know how the two speak.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;

use super::{Asked, Inheritance, TakeoverError, follow, listen, socket_beside};
use crate::config::Config;
use crate::listeners::Listener;
use crate::proxy::{Proxy, StartError, TO_END};
use crate::state_file::{Saved, StateFile, StateFileError};

impl Proxy {
    /// As [`Proxy::start`], with the listening sockets of the proxy that has this configuration's state file, when one runs: no
    /// connection is refused meanwhile, and that one keeps the sessions that it has. One that is about to end is waited for.
    ///
    /// # Errors
    /// [`StartError`]; the other one goes on as before then.
    pub async fn take_over(config: Config) -> Result<Self, StartError> {
        // What can be known to be wrong is, before the other one lets nobody be held any more.
        Self::check_alone(config.clone())?;
        let patience = match Inheritance::ask(&config.state_file).await? {
            Asked::Given(inherited) => {
                let io = |source| StateFileError::Io { path: config.state_file.clone(), source };
                let (file, saved) =
                    StateFile::inherit(&config.state_file, inherited.state.try_clone().map_err(io)?)?;
                let saved = Saved { epoch: saved.epoch.max(inherited.epoch), ..saved };
                return Self::begin(config, (file, saved), Some(*inherited)).await;
            }
            // It lets transactions end first.
            Asked::Ending => {
                Duration::from_millis(config.limits.shutdown_ms) + Duration::from_secs(1) + TO_END
            }
            Asked::Nobody => TO_END,
        };
        let state = Self::own_state(&config, patience).await.map_err(|error| match error {
            StartError::State(StateFileError::InUse { path }) => {
                TakeoverError::NotEnded { path, limit: patience }.into()
            }
            other => other,
        })?;
        Self::begin(config, state, None).await
    }

    /// As [`Proxy::check`], for [`Proxy::take_over`]: the addresses of a proxy that runs are its own to give.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn check_takeover(config: Config) -> Result<(), StartError> {
        let path = socket_beside(&config.state_file);
        if std::os::unix::net::UnixStream::connect(path).is_err() {
            return Self::check(config);
        }
        Self::check_alone(config)
    }

    /// All of [`Proxy::check`] that has nothing to do with addresses.
    fn check_alone(config: Config) -> Result<(), StartError> {
        config.check()?;
        let state = StateFile::open(&config.state_file, Self::first(&config))?;
        Self::assemble(config, state).map(drop)
    }

    /// Has the predecessor stop, if there is one; answers the socket by which this process is taken over.
    pub(crate) async fn succeed(
        &mut self,
        inheritance: Option<Inheritance>,
        listeners: &mut Vec<Listener>,
    ) -> Result<Option<UnixListener>, StartError> {
        let path = socket_beside(&self.shared.config.state_file);
        let failed = |source| StartError::Listen { address: path.display().to_string(), source };
        let Some(inheritance) = inheritance else {
            return Ok(listen(&path));
        };
        self.shared.gate.inherit(inheritance.at_risk);
        let control = inheritance.control.try_clone().map_err(failed)?;
        let control = UnixListener::from_std(control.into()).map_err(failed)?;
        if let Some(legacy) = inheritance.accept().await? {
            legacy.begin(&self.shared);
            self.tasks.spawn(follow(Arc::clone(&self.shared), legacy));
            return Ok(Some(control));
        }
        // Nobody but us. Whoever found the paths while they were there waits in the sockets that were inherited.
        if let Some(gone) = self.socket.clone().filter(|path| !path.exists()) {
            match self.listen_at(gone, None) {
                Ok(listener) => listeners.push(listener),
                Err(error) => tracing::error!(%error, "and the socket that was there is gone"),
            }
        }
        if path.exists() { Ok(Some(control)) } else { Ok(listen(&path)) }
    }
}
