//! Owns remembering, on the server itself, what must be put back later. Refuses to know the meaning of what it keeps.

use pgteal_postgres::{Session, schema, state};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CarryError, Result};
use crate::deployment::DeploymentId;

/// In whose name something is remembered. An epoch lower than one seen on the server is refused there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The epoch of the driver.
    pub epoch: u64,
}

/// Remembers, in the session's open transaction if there is one.
pub(super) async fn remember<T: Serialize>(s: &Session, author: &Author, key: &str, value: &T) -> Result<()> {
    let value = serde_json::to_value(value).map_err(|e| CarryError::Unreadable(format!("{key}: {e}")))?;
    let epoch = i64::try_from(author.epoch).unwrap_or(i64::MAX);
    Ok(state::put(s, key, &value, epoch, author.deployment.as_str()).await?)
}

/// Recalls; none if nothing was remembered, or our schema is not there.
pub(super) async fn recall<T: DeserializeOwned>(s: &Session, key: &str) -> Result<Option<T>> {
    if schema::owner(s).await?.is_none() {
        return Ok(None);
    }
    let Some(entry) = state::get(s, key).await? else { return Ok(None) };
    serde_json::from_value(entry.value).map(Some).map_err(|e| CarryError::Unreadable(format!("{key}: {e}")))
}

/// Forgets.
pub(super) async fn forget(s: &Session, key: &str) -> Result<()> {
    if schema::owner(s).await?.is_some() {
        state::remove(s, key).await?;
    }
    Ok(())
}
