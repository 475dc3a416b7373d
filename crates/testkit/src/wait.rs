//! The one way to wait in tests: a condition with a name, a bound and its last status. Refuses to know what is
//! waited for.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// A condition did not come true within its bound.
#[derive(Debug, thiserror::Error)]
#[error("waited {} ms for {condition}: {last_status}", bound.as_millis())]
pub struct WaitError {
    /// What was waited for.
    pub condition: String,
    /// How long.
    pub bound: Duration,
    /// What the last look said.
    pub last_status: String,
}

/// Looks at a condition every 10 ms until it holds (`Ok`) or `bound` has passed; `Err` carries the status of that
/// look. One look that hangs cannot outlast the bound either.
///
/// # Errors
/// [`WaitError`] names the condition, the bound and the last status.
pub async fn wait_until<T, S: Display>(
    condition: &str,
    bound: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, S>,
) -> Result<T, WaitError> {
    let end = Instant::now() + bound;
    let mut last_status = String::from("never looked at");
    let looking = async {
        loop {
            match probe().await {
                Ok(value) => return value,
                Err(status) => last_status = status.to_string(),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    };
    match tokio::time::timeout_at(end.into(), looking).await {
        Ok(value) => Ok(value),
        Err(_) => Err(WaitError { condition: condition.to_owned(), bound, last_status }),
    }
}
