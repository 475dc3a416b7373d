//! The service role's login on each side: who it is there, and its password. Owns reading passwords, once, at the start; refuses
//! to know what the role asks.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgteal_wire::startup::{ProtocolVersion, StartupMessage};
use zeroize::Zeroize as _;

use super::credentials::Credentials;
use super::target::Target;
use super::upstream::{self, Upstream, UpstreamError};
use crate::config::{AuthConfig, Service};
use crate::route::Side;

/// The service role's password cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServicePasswordError {
    /// The file cannot be read.
    #[error("service password file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The environment variable is not set.
    #[error("service password: environment variable {0} is not set")]
    Env(String),
}

/// The service role on one side.
#[derive(Debug)]
pub struct ServiceLogin {
    server: Arc<Target>,
    user: String,
    database: String,
    credentials: Credentials,
}

impl ServiceLogin {
    /// The service role of the side whose primary is `server`.
    #[must_use]
    pub fn new(service: &Service<'_>, credentials: Credentials, server: Arc<Target>) -> Self {
        Self { server, user: service.user.into(), database: service.database.into(), credentials }
    }

    /// The side's primary.
    #[must_use]
    pub const fn server(&self) -> &Arc<Target> {
        &self.server
    }

    /// The role's name.
    #[must_use]
    pub const fn user(&self) -> &str {
        self.user.as_str()
    }

    /// Logs in on this server of the side, with these settings besides user and database.
    ///
    /// # Errors
    /// [`UpstreamError`]; no connection is left open then.
    pub async fn log_in(
        &self,
        server: &Target,
        settings: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Upstream, UpstreamError> {
        let who = [("user", self.user.as_str()), ("database", self.database.as_str())];
        let startup =
            StartupMessage::new(ProtocolVersion::V3_0, who.into_iter().chain(settings.iter().copied()));
        upstream::log_in(server, &startup, &self.credentials, limit).await
    }
}

/// The service role on both sides.
#[derive(Debug)]
pub struct ServiceLogins {
    blue: Arc<ServiceLogin>,
    green: Option<Arc<ServiceLogin>>,
}

impl ServiceLogins {
    /// Reads the passwords of both sides as configured.
    ///
    /// # Errors
    /// [`ServicePasswordError`].
    pub fn read(
        config: &AuthConfig,
        blue: &Arc<Target>,
        green: Option<&Arc<Target>>,
    ) -> Result<Self, ServicePasswordError> {
        let login = |side, server: &Arc<Target>| {
            let service = config.service(side);
            let credentials = credentials(&service)?;
            Ok(Arc::new(ServiceLogin::new(&service, credentials, Arc::clone(server))))
        };
        let green = green.map(|server| login(Side::Green, server)).transpose()?;
        Ok(Self { blue: login(Side::Blue, blue)?, green })
    }

    /// That of a side, if the side is configured.
    #[must_use]
    pub const fn of(&self, side: Side) -> Option<&Arc<ServiceLogin>> {
        match side {
            Side::Blue => Some(&self.blue),
            Side::Green => self.green.as_ref(),
        }
    }
}

/// An environment variable, the first line of a file, or none.
fn credentials(service: &Service<'_>) -> Result<Credentials, ServicePasswordError> {
    if let Some(name) = service.password_env {
        let password = std::env::var(name).map_err(|_| ServicePasswordError::Env(name.to_owned()))?;
        return Ok(Credentials::password(password));
    }
    let Some(path) = service.password_file else { return Ok(Credentials::None) };
    let mut text = std::fs::read_to_string(path)
        .map_err(|source| ServicePasswordError::File { path: path.to_owned(), source })?;
    let credentials = Credentials::password(text.lines().next().unwrap_or_default());
    text.zeroize();
    Ok(credentials)
}
