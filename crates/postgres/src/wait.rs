//! Waiting on a server: every wait names its condition, its bound and the last status it saw. Knows no condition itself.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::session::Session;

/// What one look saw.
#[derive(Debug)]
pub enum Look<T> {
    /// The condition holds.
    Reached(T),
    /// Not yet, and how it stands.
    NotYet(String),
}

/// Looks every `pause` until the condition holds or `bound` is over; looks once in any case.
pub async fn until<T, F, Fut>(
    s: &Session,
    condition: impl Display,
    bound: Duration,
    pause: Duration,
    mut look: F,
) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Look<T>>>,
{
    let start = Instant::now();
    loop {
        let last = match look().await? {
            Look::Reached(value) => return Ok(value),
            Look::NotYet(status) => status,
        };
        if start.elapsed() + pause > bound {
            return Err(Error::NotReached {
                place: Box::new(s.place("waiting")),
                condition: condition.to_string(),
                bound,
                last,
            });
        }
        pause_precisely(pause).await;
    }
}

/// Tokio's timer has a resolution of a millisecond; shorter pauses are slept on a thread. Not spun away: the processor is
/// wanted by the very server that is waited for.
#[allow(clippy::disallowed_methods, reason = "sleeps on a thread kept for what blocks")]
async fn pause_precisely(pause: Duration) {
    if pause >= Duration::from_millis(1) {
        tokio::time::sleep(pause).await;
    } else if tokio::task::spawn_blocking(move || std::thread::sleep(pause)).await.is_err() {
        // Only while the runtime is shut down: whoever waits is about to be dropped.
        tokio::task::yield_now().await;
    }
}
